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
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from libragrad_lightning.backward import steps
from libragrad_lightning.backward.operations import Node
from libragrad_lightning.backward.slices import Write, hidden_write, note_kind

_KEY = "libragrad_lightning.constant"

_AFFINE = frozenset(
    f"{name}Backward{overload}"
    for name in (
        *("Add", "Sub", "Rsub", "Cat", "Stack", "Where", "MaskedFill", "ConstantPadNd", "Complex"),
        *("IndexAdd", "IndexFill", "IndexPut", "MaskedScatter", "Scatter", "ScatterAdd"),
        *("DiagonalScatter", "SelectScatter", "SliceScatter"),
    )
    for overload in (0, 1)
) | {"LerpBackward0"}
"""Operations that are affine in their operands, and whose constants may leave no trace."""

_RANDOM = frozenset(
    {
        *(F.alpha_dropout, torch.alpha_dropout, torch.alpha_dropout_),
        *(F.feature_alpha_dropout, torch.feature_alpha_dropout, torch.feature_alpha_dropout_),
    }
)
"""Functions that draw the constant that they add."""

_WITH_ADDEND = frozenset(f"{name}Backward0" for name in ("Addcmul", "Addmm", "Addmv", "Baddbmm"))
"""Sums of an addend and a product, which are affine in the addend if both factors are constant."""


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
        kwargs = dict(kwargs or {})
        write, again = Write.about_to_happen(func, args), _as_drawn_now(func, args)
        result = func(*args, **kwargs)
        if write is not None:
            _note_write(write, func, args, kwargs)
        note_kind(func, args, kwargs)
        if isinstance(result, Tensor) and result.grad_fn is not None:
            node: Node = result.grad_fn
            steps.note_threshold(node, args, kwargs)
            if steps.is_step(node):
                node.metadata[_KEY] = partial(Tensor.clone, result.detach())
            if lacks_constant(node):
                operands = tree_map_only(Tensor, _without_value, (tuple(args), kwargs))
                node.metadata[_KEY] = partial(_value_at_zero, again, operands)
        return result


def _note_write(
    write: Write, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    node = hidden_write(args[0])
    if node is not None:
        operands = tree_map_only(Tensor, _without_value, (tuple(args[1:]), dict(kwargs)))
        node.metadata[_KEY] = partial(_written_at_zero, write, func, operands)


def lacks_constant(node: Node) -> bool:
    """Return whether a node is an affine operation that may add what the graph does not hold."""
    name, edges = node.name(), node.next_functions
    if name in _WITH_ADDEND:
        return edges[1][0] is edges[2][0] is None
    return name in _AFFINE and (len(edges) == 1 or any(child is None for child, _ in edges))


def is_noted(node: Node) -> bool:
    """Return whether a constant was noted with a node."""
    return _KEY in node.metadata


def observed_constant(node: Node) -> Tensor:
    """Return the constant that was noted with a node, in the shape of its output."""
    value: Tensor = node.metadata[_KEY]()
    return value


def _as_drawn_now(func: Callable[..., Any], args: Sequence[Any]) -> Callable[..., Any]:
    """Return a function that draws what a random function is about to draw."""
    if func not in _RANDOM:
        return func
    device = args[0].device
    forked = [device] if device.type == "cuda" else []
    state = torch.cuda.get_rng_state(device) if forked else torch.get_rng_state()

    def draw_again(*args: Any, **kwargs: Any) -> Any:
        with torch.random.fork_rng(forked):
            if forked:
                torch.cuda.set_rng_state(state, device)
            else:
                torch.set_rng_state(state)
            return func(*args, **kwargs)

    return draw_again


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


def _written_at_zero(write: Write, func: Callable[..., Any], operands: tuple[Any, Any]) -> Tensor:
    """Return what an affine in-place operation on a view adds to its base."""
    args, kwargs = tree_map_only(_Zeros, _Zeros.tensor, operands)
    return write.constant(func, args, kwargs)
