"""Remembers the constants that autograd records nothing of: buffers and Python numbers.

``x + buffer`` and ``1 - x`` leave no trace of the buffer or the number in the graph, yet both add
to the output like any bias. While a `ConstantObserver` is active it looks on, changes nothing, and
leaves a note with the graph node; the note lives and dies with the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from libragrad_lightning.backward.operations import Node

_KEY = "libragrad_lightning.constant"

_AFFINE = frozenset(
    f"{name}Backward{overload}"
    for name in ("Add", "Sub", "Rsub", "Cat", "Stack", "Where", "MaskedFill", "ConstantPadNd")
    for overload in (0, 1)
)
"""Operations that are affine in their operands, and whose constants may leave no trace."""


class ConstantObserver(TorchFunctionMode):
    """Notes the constants of a forward pass for the bias contributions of `grad`.

    Example:
        >>> from libragrad_lightning.backward import grad
        >>> x = torch.tensor([2.0], requires_grad=True)
        >>> with ConstantObserver():
        ...     y = (1 - x).sum()
        >>> contributions = []
        >>> _ = grad(y, x, on_bias=lambda site, contribution: contributions.append(contribution))
        >>> contributions
        [tensor([1.])]
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.grad_fn is not None:
            node: Node = result.grad_fn
            if lacks_constant(node):
                operands = tree_map_only(Tensor, _without_value, (tuple(args), dict(kwargs or {})))
                node.metadata[_KEY] = partial(_value_at_zero, func, operands)
        return result


def lacks_constant(node: Node) -> bool:
    """Return whether a node is an affine operation that may add what the graph does not hold."""
    if node.name() not in _AFFINE:
        return False
    edges = node.next_functions
    return len(edges) == 1 or any(child is None for child, _ in edges)


def is_noted(node: Node) -> bool:
    """Return whether a constant was noted with a node."""
    return _KEY in node.metadata


def observed_constant(node: Node) -> Tensor:
    """Return the constant that was noted with a node, in the shape of its output."""
    value: Tensor = node.metadata[_KEY]()
    return value


@dataclass(frozen=True)
class _Zeros:
    """Stands for an operand that the graph does hold."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    def tensor(self) -> Tensor:
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


def _without_value(operand: Tensor) -> Tensor | _Zeros:
    if operand.requires_grad:
        return _Zeros(operand.shape, operand.dtype, operand.device)
    return operand


def _value_at_zero(func: Callable[..., Tensor], operands: tuple[Any, Any]) -> Tensor:
    """Return what an affine operation adds: its value where everything recorded is zero."""
    args, kwargs = tree_map_only(_Zeros, _Zeros.tensor, operands)
    with torch.no_grad():
        return func(*args, **kwargs)
