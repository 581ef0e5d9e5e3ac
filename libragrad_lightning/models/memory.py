"""Puts back what modules keep of a forward pass: attributes, buffers and caches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_OWNED = frozenset(vars(nn.Module())) - {"_buffers"}
"""Containers of `nn.Module` itself: submodules, parameters and hooks, which others look after."""


@contextmanager
def preserved_memory(model: nn.Module) -> Iterator[None]:
    """Put back the attributes and buffers of all modules, and the contents of their containers.

    Inside, nothing that was computed before is in the way: caches of tensors that have a graph or
    come from inference mode are empty, and other tensors of inference mode are replaced by copies.
    LeViT, TinyViT and others cache their attention biases, and autograd would fail on those.
    """
    dicts = [(kept, dict(kept)) for kept in _held(model, dict)]
    dicts += [(vars(module), dict(vars(module))) for module in model.modules()]
    lists = [(kept, list(kept)) for kept in _held(model, list)]
    values = [(t, t._version, t.detach().clone()) for t in _writable(model)]
    try:
        for kept, _ in dicts:
            _forget_graphs(kept)
        yield
    finally:
        _restore_values(values)
        for kept, entries in dicts:
            _restore_entries(kept, entries)
        for items, before in lists:
            items[:] = before


def _held(model: nn.Module, kind: type) -> list[Any]:
    """Return the containers of a kind that modules hold, each once."""
    found: dict[int, Any] = {}
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, kind) and name not in _OWNED:
                found[id(value)] = value
    return list(found.values())


def _writable(model: nn.Module) -> list[Tensor]:
    """Return the buffers and plain tensors that a forward pass may write to."""
    found = {id(buffer): buffer for buffer in model.buffers()}
    for module in model.modules():
        found |= {id(v): v for v in vars(module).values() if isinstance(v, Tensor)}
    return [tensor for tensor in found.values() if not tensor.is_inference()]


def _forget_graphs(kept: dict[Any, Any]) -> None:
    tensors = [value for value in kept.values() if isinstance(value, Tensor)]
    if len(tensors) == len(kept) and any(t.grad_fn is not None for t in tensors):
        kept.clear()
    for key, value in kept.items():
        if isinstance(value, Tensor) and value.is_inference():
            kept[key] = value.clone()


def _restore_values(values: Iterable[tuple[Tensor, int, Tensor]]) -> None:
    with torch.no_grad():
        for tensor, version, value in values:
            if tensor._version != version:
                tensor.copy_(value)


def _restore_entries(kept: dict[Any, Any], entries: dict[Any, Any]) -> None:
    for key in kept.keys() - entries.keys():
        del kept[key]
    kept.update(entries)
