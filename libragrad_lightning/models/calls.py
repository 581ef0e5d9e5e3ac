"""Records what goes into and comes out of every module in one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from libragrad_lightning.backward.graph import Edge, edge_of
from libragrad_lightning.models.hooks import hooked_modules

Argument: TypeAlias = int | str
"""The position or the name of an argument of a module."""


@dataclass(frozen=True)
class Feature:
    """A differentiable tensor that a module received or returned, as it was at that moment.

    Attributes:
        edge: Its place in the graph.
        shape: Its shape.
        tensor: The tensor itself, which may have been overwritten since.
        version: How often it had been overwritten.
    """

    edge: Edge
    shape: torch.Size
    tensor: Tensor
    version: int

    @property
    def overwritten(self) -> bool:
        """Whether the tensor was changed in place afterwards."""
        return self.tensor._version != self.version


@dataclass(frozen=True)
class Call:
    """One call of a module that received and returned differentiable tensors.

    Attributes:
        path: The path of the module.
        module: The module.
        number: The number of the call among those of the module, from 0.
        argument: Which argument was its first differentiable tensor.
        received: That tensor.
        returned: The first differentiable tensor that it returned.
        start: When it began, by the number of calls and returns before.
        end: When it returned.
    """

    path: str
    module: nn.Module
    number: int
    argument: Argument
    received: Feature
    returned: Feature
    start: int
    end: int

    def contains(self, other: Call) -> bool:
        """Return whether another call ran inside of this one."""
        return self.start < other.start and other.end < self.end


@contextmanager
def recorded_calls(model: nn.Module) -> Iterator[list[Call]]:
    """Record the calls of all modules, in the order in which they return.

    Hooks stand on the modules inside of the context only.
    """
    calls: list[Call] = []
    clock = count()
    with hooked_modules(model, lambda path: _hooks(path, calls, clock)):
        yield calls


def _hooks(path: str, calls: list[Call], clock: Iterator[int]) -> tuple[Any, Any]:
    running: list[tuple[int, int, tuple[Argument, Feature] | None]] = []
    numbers = count()

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        argument = first_argument(args, kwargs)
        received = (
            None if argument is None else (argument, _feature(argument_of(args, kwargs, argument)))
        )
        running.append((next(numbers), next(clock), received))

    def after(module: nn.Module, _: Any, output: Any) -> None:
        if not running:
            return
        number, start, received = running.pop()
        tensor = first_tensor(output)
        if received is not None and tensor is not None:
            features = (*received, _feature(tensor))
            calls.append(Call(path, module, number, *features, start, next(clock)))

    return before, after


def first_argument(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Argument | None:
    """Return the position or the name of the first differentiable tensor."""
    arguments: list[tuple[Argument, Any]] = [*enumerate(args), *kwargs.items()]
    return next((key for key, value in arguments if is_differentiable(value)), None)


def argument_of(args: Sequence[Any], kwargs: Mapping[str, Any], argument: Argument) -> Any:
    """Return an argument by its position or its name."""
    return args[argument] if isinstance(argument, int) else kwargs[argument]


def first_tensor(output: Any) -> Tensor | None:
    """Return the first differentiable tensor in what a module returned, if there is one."""
    items: Sequence[Any] = output if isinstance(output, tuple | list) else (output,)
    items = tuple(output.values()) if isinstance(output, Mapping) else items
    return next((item for item in items if is_differentiable(item)), None)


def is_differentiable(value: Any) -> bool:
    """Return whether a value is a tensor that is differentiated."""
    recorded = not torch.is_inference_mode_enabled()
    return recorded and isinstance(value, Tensor) and value.requires_grad


def _feature(tensor: Tensor) -> Feature:
    return Feature(edge_of(tensor), tensor.shape, tensor, tensor._version)
