"""In-place operations on views, such as ``x[:, 1:] += y``.

Autograd records them as a node that hides the operation proper. Whether it is affine can be seen
from its derivative, unless it is a clamp or a leaky relu; what it adds, and whether it is one of
those, a `ConstantObserver` can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from libragrad_lightning.backward.operations import Node

_CLAMPS = "libragrad_lightning.clamps"
_SLOPES = "libragrad_lightning.slopes"

_AFFINE = frozenset(
    [
        "__setitem__",
        "add_",
        "copy_",
        "fill_",
        "index_add_",
        "index_fill_",
        "index_put_",
        "masked_fill_",
        "masked_scatter_",
        "scatter_",
        "scatter_add_",
        "sub_",
        "zero_",
    ]
)
_CLAMPING = frozenset(
    ["clamp_", "clamp_max_", "clamp_min_", "clip_", "hardtanh", "hardtanh_", "relu6", "relu6_"]
)
_SLOPING = frozenset(["leaky_relu", "leaky_relu_", "neg_", "negative_"])
"""Piecewise linear operations whose slopes are others than 0 and 1."""


def is_affine_write(node: Node) -> bool:
    """Return whether a hidden in-place operation overwrites a view or adds to it.

    Then every element of the base is kept or dropped, so that its derivative is 1 or 0 (as for
    additions, copies, and selections such as relu). A product, a power or an activation scales it
    by something else; a clamp or a leaky relu must have been observed to be told apart.
    """
    metadata = node._input_metadata[0]
    if _SLOPES in node.metadata:
        return True
    if metadata.device.type == "meta":
        return True
    if len(node.next_functions) > 2 or _CLAMPS in node.metadata:
        return False
    ones = torch.ones(metadata.shape, dtype=metadata.dtype, device=metadata.device)
    of_base = node(ones)
    of_base = of_base[0] if isinstance(of_base, tuple) else of_base
    return of_base is None or bool(((of_base == 0) | (of_base == 1)).all())


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
    def about_to_happen(cls, function: Callable[..., Any], args: Sequence[Any]) -> Write | None:
        """Look at a call before it happens; None if it is no such operation."""
        known = getattr(function, "__name__", "") in _AFFINE
        if not (known and args and torch.is_grad_enabled()):
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


def note_kind(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Leave a note with the node of a clamp or leaky relu that happened in place on a view."""
    name = getattr(function, "__name__", "")
    if name not in _CLAMPING | _SLOPING or not args:
        return
    if name.endswith("_") or any(a is True for a in (*args[1:], kwargs.get("inplace"))):
        node = hidden_write(args[0])
        if node is not None:
            node.metadata[_CLAMPS if name in _CLAMPING else _SLOPES] = True


def _base(tensor: Tensor) -> Tensor:
    return tensor._base if tensor._is_view() and tensor._base is not None else tensor
