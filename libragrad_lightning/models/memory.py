"""Puts back what a forward pass leaves behind: in modules, in their objects, and in hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from libragrad_lightning.models.reach import Reachable
from libragrad_lightning.models.values import (
    LARGEST,
    Restore,
    kept_leaf,
    kept_stream,
    kept_tensor,
    kept_within,
)


@contextmanager
def preserved_memory(model: nn.Module) -> Iterator[None]:
    """Put back everything that a forward pass of a model can change.

    These are the attributes and buffers of all modules, what their hooks hold, and all objects of
    the model that can be reached from there. Containers, tensors, arrays and random streams remain
    the objects that they were; of iterators, copies are advanced.

    Inside, hooks of modules that are called in a backward pass are gone, and nothing that was
    computed before is in the way: caches of tensors that have a graph or come from inference mode
    are empty, and other tensors of inference mode are replaced by copies. LeViT, TinyViT and others
    cache their attention biases, and autograd would fail on those.
    """
    found = Reachable(model)
    restores = list(_restores(found))
    try:
        for kept in found.dicts:
            _forget_graphs(kept)
        for kept in (*found.dicts, *found.tables):
            _leave_inference(kept)
        for hooks in found.backward_hooks:
            hooks.clear()
        if found.iterators:
            for holder in found.holders:
                holder.exchange(found.iterators.stand_in)
        yield
    finally:
        _restore_all(restores)


def _restores(found: Reachable) -> Iterator[Restore]:
    for tensor in (*found.own_tensors.values(), *found.others.values()):
        if isinstance(tensor, Tensor) and tensor.is_leaf:
            yield kept_leaf(tensor)
    yield from map(kept_tensor, found.own_tensors.values())
    yield from kept_within(found.others.values(), LARGEST)
    yield from map(kept_stream, found.streams)
    yield partial(_empty, found.empty)
    for holder in found.holders:
        yield holder.restore


def _empty(containers: list[Any]) -> None:
    for container in containers:
        if container:
            container.clear()


def _restore_all(restores: list[Restore]) -> None:
    """Put everything back, also what comes after something that cannot be put back."""
    errors: list[Exception] = []
    for restore in restores:
        try:
            restore()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _forget_graphs(kept: dict[Any, Any]) -> None:
    tensors = [value for value in kept.values() if isinstance(value, Tensor)]
    if len(tensors) == len(kept) and any(t.grad_fn is not None for t in tensors):
        kept.clear()


def _leave_inference(kept: dict[Any, Any]) -> None:
    for key, value in kept.items():
        if isinstance(value, Tensor) and value.is_inference():
            kept[key] = value.clone()
