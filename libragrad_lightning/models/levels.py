"""Levels: the places in a model where all features pass, and hooks that stand there for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from libragrad_lightning.models.calls import Argument, argument_of, first_tensor
from libragrad_lightning.models.feature_view import Axes
from libragrad_lightning.models.refusals import REFUSALS, is_out_of_memory


@dataclass(frozen=True)
class Point:
    """A tensor in the forward pass of a model: what one call of a module receives or returns.

    Attributes:
        module: The module.
        argument: Which of its arguments the tensor is; None for what it returns.
        number: The number of the call among those of the module in a forward pass, from 0.
    """

    module: nn.Module
    argument: Argument | None = 0
    number: int = 0


@dataclass(frozen=True)
class Level:
    """A place in a model where all features pass: the input of a block.

    Attributes:
        points: Where the features are; one for each pass, if a model runs its blocks several times
            on what it makes of the same images.
        axes: Their possible axes; which of them they have is measured.
        mid_residuals: Where the features after the first residual connection of the block are; None
            if there is none.
        rule: How the level was found, for reports.
        is_whole: Whether the features go into the modules at the points alone, so that to replace
            an argument there is to replace them; else a residual connection outside has them too.
    """

    points: tuple[Point, ...]
    axes: tuple[Axes, ...]
    mid_residuals: tuple[Point, ...] | None = None
    rule: str = "block"
    is_whole: bool = True


@contextmanager
def seen_at(point: Point, use: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Show the tensor at a point to a function, whose answer replaces it unless it is None."""
    if point.argument is None:
        handle = point.module.register_forward_hook(_after(point.number, use))
    else:
        before = _before(point.argument, point.number, use)
        handle = point.module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _before(argument: Argument, number: int, use: Callable[[Tensor], Tensor | None]) -> Any:
    calls = 0

    def hook(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        nonlocal calls
        calls += 1
        replacement = use(argument_of(args, kwargs, argument)) if calls == number + 1 else None
        if replacement is None:
            return None
        if isinstance(argument, str):
            return args, {**kwargs, argument: replacement}
        return (*args[:argument], replacement, *args[argument + 1 :]), kwargs

    return hook


def _after(number: int, use: Callable[[Tensor], Tensor | None]) -> Any:
    calls = 0

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        tensor = first_tensor(output) if calls == number + 1 else None
        if tensor is None:
            return None
        replacement = use(tensor)
        return None if replacement is None else _exchanged(output, tensor, replacement)

    return hook


def _exchanged(output: Any, tensor: Tensor, replacement: Tensor) -> Any:
    """Return what a module returned with another tensor in it."""
    if isinstance(output, tuple | list):
        return type(output)(replacement if item is tensor else item for item in output)
    if isinstance(output, MutableMapping):
        exchanged = copy(output)
        exchanged.update({k: replacement for k, item in output.items() if item is tensor})
        return exchanged
    return replacement


class _SeenError(BaseException):
    """All that is wanted was seen; no handler of the model's own catches it."""


def features_at(
    forward: Callable[[Tensor], object], levels: Sequence[Level], images: Tensor
) -> list[tuple[Tensor, ...]]:
    """Return the features of some levels, one tensor for each of their passes.

    Of the images one by one if there is no memory for all of them.
    """
    points = [point for level in levels for point in level.points]
    try:
        with torch.no_grad():
            seen = seen_until_the_last(forward, points, images)
    except REFUSALS as error:
        if not is_out_of_memory(error) or len(images) == 1:
            raise
        each = [features_at(forward, levels, image) for image in images.split(1)]
        return [_in_one(level, parts) for level, *parts in zip(levels, *each, strict=True)]
    return [tuple(seen[point] for point in level.points) for level in levels]


def _in_one(level: Level, parts: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    axis = 1 if level.axes[0] is Axes.TOKENS_FIRST else 0
    return tuple(torch.cat(passes, axis) for passes in zip(*parts, strict=True))


def seen_until_the_last(
    forward: Callable[[Tensor], object], points: Sequence[Point], images: Tensor
) -> dict[Point, Tensor]:
    """Return the tensors at some points, after a forward pass that ends at the last of them.

    A point that is not reached has none. Where gradients are enabled, they lead to the images.
    """
    seen: dict[Point, Tensor] = {}

    def look(point: Point, tensor: Tensor) -> None:
        seen[point] = tensor.clone()  # it may be overwritten afterwards
        if len(seen) == len(points):
            raise _SeenError

    with ExitStack() as stack:
        for point in points:
            stack.enter_context(seen_at(point, partial(look, point)))
        with suppress(_SeenError):
            forward(images)
    return seen
