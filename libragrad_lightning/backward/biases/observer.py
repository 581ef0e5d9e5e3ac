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

from libragrad_lightning.backward.biases.writes import (
    Write,
    hidden_write,
    note_kind,
    written_in_place,
)
from libragrad_lightning.backward.graph import Function, Node, Operation, Vocabulary
from libragrad_lightning.backward.rules import VOCABULARY, note_threshold

_KEY = "libragrad_lightning.constant"

_RANDOM = frozenset(
    {
        *(F.alpha_dropout, torch.alpha_dropout, torch.alpha_dropout_),
        *(F.feature_alpha_dropout, torch.feature_alpha_dropout, torch.feature_alpha_dropout_),
    }
)
"""Functions that draw the constant that they add."""

_OPERANDS: dict[Callable[..., Any], tuple[str, ...]] = {
    F.linear: ("input", "weight", "bias"),
    F.layer_norm: ("input", "normalized_shape", "weight", "bias"),
    F.group_norm: ("input", "num_groups", "weight", "bias"),
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias"),
    F.instance_norm: ("input", "running_mean", "running_var", "weight", "bias"),
}
"""Functions whose nodes do not show all that is added, and the names of their arguments."""


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

    def __init__(self, vocabulary: Vocabulary = VOCABULARY) -> None:
        """Observe with a vocabulary.

        Args:
            vocabulary: What nodes compute. Constants of operations that it does not know are noted
                too, for rule sets that do.
        """
        super().__init__()
        self._vocabulary = vocabulary

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        written = written_in_place(func, args, kwargs, self._vocabulary)
        write, again = Write.about_to_happen(written, args), _as_drawn_now(func, args)
        result = func(*args, **kwargs)
        if write is not None:
            _note_write(write, func, args, kwargs)
        if written is not None:
            note_kind(written, args[0])
        if isinstance(result, Tensor) and result.grad_fn is not None:
            self._note(result, again, args, kwargs)
        return result

    def _note(
        self,
        result: Tensor,
        again: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Note what the operation that gave a result adds, if the graph may not hold it."""
        node: Node = result.grad_fn
        operation, hidden = self._vocabulary.of(node), _hidden(again, args, kwargs)
        if operation is not None and operation.function is Function.THRESHOLD:
            note_threshold(node, args, kwargs)
        elif operation is not None and operation.function is Function.STEP:
            node.metadata[_KEY] = _Note(partial(Tensor.clone, result.detach()))
        elif operation is not None and hidden == {"bias"} and again is not F.linear:
            # A norm of zeros is no constant of it: only its bias is.
            node.metadata[_KEY] = _Note(partial(_norm_bias, result.shape, again, args, kwargs))
        elif operation is None or operation.may_hide_constant(node) or hidden:
            operands = tree_map_only(Tensor, _without_value, (tuple(args), kwargs))
            read = _product_at_zero if "product" in hidden else _value_at_zero
            value = partial(read, again, operands)
            node.metadata[_KEY] = _Note(value, is_known=operation is not None)


@dataclass(frozen=True)
class _Note:
    """What an operation adds.

    Attributes:
        value: Computes it, in the shape of the output.
        is_known: Whether it is known that the operation is affine.
    """

    value: Callable[[], Tensor]
    is_known: bool = True


def _hidden(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> frozenset[str]:
    """Return what a linear map or a norm adds without a record, its ``product`` or its ``bias``."""
    if func not in _OPERANDS:
        return frozenset()
    given = dict(zip(_OPERANDS[func], args, strict=False)) | dict(kwargs)
    recorded = {name for name, t in given.items() if isinstance(t, Tensor) and t.requires_grad}
    bias = given.get("bias") is not None and "bias" not in recorded
    product = not recorded & {"input", "weight"}
    return frozenset({*(["bias"] if bias else []), *(["product"] if product else [])})


def _norm_bias(
    shape: torch.Size, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Tensor:
    """Return the bias of a norm in the shape of its output."""
    bias: Tensor = (dict(zip(_OPERANDS[func], args, strict=False)) | dict(kwargs))["bias"]
    behind = [] if func is F.layer_norm else [1] * (len(shape) - 2)
    return bias.reshape(*bias.shape, *behind).expand(shape).clone()


def _note_write(
    write: Write, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    node = hidden_write(args[0])
    if node is not None:
        operands = tree_map_only(Tensor, _without_value, (tuple(args[1:]), dict(kwargs)))
        node.metadata[_KEY] = _Note(partial(_written_at_zero, write, func, operands))


def is_noted(node: Node, operation: Operation | None) -> bool:
    """Return whether a constant was noted with a node.

    Args:
        node: The node.
        operation: What it computes. Notes of operations that the observer did not know count if
            this operation may hide a constant.
    """
    note: _Note | None = node.metadata.get(_KEY)
    if note is None:
        return False
    return note.is_known or (operation is not None and operation.may_hide_constant(node))


def observed_constant(node: Node) -> Tensor:
    """Return the constant that was noted with a node, in the shape of its output."""
    note: _Note = node.metadata[_KEY]
    return note.value()


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


def _product_at_zero(func: Callable[..., Tensor], operands: tuple[Any, Any]) -> Tensor:
    """Return what constants alone make of each other, where everything recorded is zero.

    What a norm makes of zeros, by its running mean, is told by its node.
    """
    args, kwargs = operands
    value = _value_at_zero(func, operands)
    nothing = torch.zeros_like(args[0] if args else kwargs["input"])
    rest = ((nothing, *args[1:]), kwargs) if args else ((), {**kwargs, "input": nothing})
    return value - _value_at_zero(func, rest)


def _written_at_zero(write: Write, func: Callable[..., Any], operands: tuple[Any, Any]) -> Tensor:
    """Return what an affine in-place operation on a view adds to its base."""
    args, kwargs = tree_map_only(_Zeros, _Zeros.tensor, operands)
    return write.constant(func, args, kwargs)
