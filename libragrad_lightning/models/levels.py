"""Levels: the places in a model where all features pass, and hooks that stand there for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from libragrad_lightning.models.calls import Argument, argument_of, first_tensor
from libragrad_lightning.models.feature_view import Axes


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
        middles: Where the features after the first residual connection of the block are; None if
            there is none.
        rule: How the level was found, for reports.
        is_whole: Whether the features go into the modules at the points alone, so that to replace
            an argument there is to replace them; else a residual connection outside has them too.
    """

    points: tuple[Point, ...]
    axes: tuple[Axes, ...]
    middles: tuple[Point, ...] | None = None
    rule: str = "block"
    is_whole: bool = True


@contextmanager
def seen_at(point: Point, use: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Show the tensor at a point to a function, whose answer replaces it unless it is None.

    What a module returns is not replaced.
    """
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

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal calls
        calls += 1
        tensor = first_tensor(output) if calls == number + 1 else None
        if tensor is not None:
            use(tensor)

    return hook
