"""In-place operations on views, such as ``x[:, 1:] += y``, and what they add.

Autograd records them as a node that hides the operation proper. What it adds to the tensor that
owns the elements, and whether it is a clamp or a leaky relu, is noted while it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from libragrad_lightning.backward.graph import Node, Operation, Vocabulary
from libragrad_lightning.backward.rules import Linear, note_linear


@dataclass(frozen=True)
class _Layout:
    """Where the elements of a tensor lie; holds no tensor, so that notes keep none alive."""

    shape: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> _Layout:
        offset = int(tensor.storage_offset())
        return cls(tensor.shape, tensor.stride(), offset, tensor.dtype, tensor.device)


@dataclass(frozen=True)
class Write:
    """An affine in-place operation on a view, or on the elements at an index.

    Attributes:
        base: The layout of the tensor that owns the elements.
        target: The layout of the tensor that is written to.
        before: The values of the base if autograd records nothing of them, else None.
    """

    base: _Layout
    target: _Layout
    before: Tensor | None

    @classmethod
    def about_to_happen(cls, operation: Operation | None, args: Sequence[Any]) -> Write | None:
        """Look at a call before it happens; None if it is no such operation.

        Args:
            operation: What the call does in place, None if that is unknown.
            args: Its arguments, the target first.
        """
        if not (_is_affine(operation) and torch.is_grad_enabled()):
            return None
        target, base = args[0], _base(args[0])
        if not any(isinstance(a, Tensor) and a.requires_grad for a in (base, *args[1:])):
            return None
        before = None if base.requires_grad else base.detach().clone()
        return cls(_Layout.of(base), _Layout.of(target), before)

    def constant(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Tensor:
        """Return what the operation leaves in the base where everything recorded is zero.

        Args:
            function: The operation.
            args: Its arguments after the target; what is recorded of them is zero.
            kwargs: Its keyword arguments.
        """
        base, target = self.base, self.target
        with torch.no_grad():
            values = torch.empty_strided(
                base.shape, base.stride, dtype=base.dtype, device=base.device
            )
            values.zero_() if self.before is None else values.copy_(self.before)
            offset = target.offset - base.offset
            function(values.as_strided(target.shape, target.stride, offset), *args, **kwargs)
        return values


def hidden_write(target: Tensor) -> Node | None:
    """Return the node that hides an in-place operation that just happened, if one does."""
    node = _base(target).grad_fn
    return node if node is not None and node.name().endswith("CopySlices") else None


def written_in_place(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    vocabulary: Vocabulary,
) -> Operation | None:
    """Return the operation that a call does in place on its first argument, None if none is known.

    Args:
        function: What is called.
        args: Its arguments.
        kwargs: Its keyword arguments.
        vocabulary: Knows which functions do operations in place.
    """
    name = getattr(function, "__name__", "")
    operation = vocabulary.in_place(name)
    if operation is None or not args:
        return None
    in_place = name.endswith("_") or any(a is True for a in (*args[1:], kwargs.get("inplace")))
    return operation if in_place else None


def note_kind(operation: Operation, target: Tensor) -> None:
    """Leave a note with the node that hides what was done in place, unless its derivative tells.

    It does where elements are overwritten or added to. It does not of a clamp, which is an
    activation, nor of a leaky relu, which is linear with another slope.
    """
    node = None if _is_affine(operation) else hidden_write(target)
    if node is not None:
        note_linear(node, isinstance(operation, Linear))


def _is_affine(operation: Operation | None) -> bool:
    return isinstance(operation, Linear) and operation.hides_constants


def _base(tensor: Tensor) -> Tensor:
    return tensor._base if tensor._is_view() and tensor._base is not None else tensor
