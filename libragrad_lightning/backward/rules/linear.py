"""Linear operations: rearrangements, sums, and piecewise linear maps, with what they add.

Compositions and sums of complete maps are complete (Thm 2, Thm 3), and linear and piecewise linear
maps are (Thm 1, Cor 1): they keep their ordinary gradient under every rule set. Constants among
their operands are biases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor

from libragrad_lightning.backward.graph import ConstantOf, Node, Operation, Role

_NUMBER = "libragrad_lightning.threshold"


class Movement(Enum):
    """How an operation moves elements without changing them."""

    PICK = "pick"
    """Picks elements of its operand by numbers or by a mask."""
    ARRANGE = "arrange"
    """Moves elements of its operand, and knows how to move them back."""
    JOIN = "join"
    """Puts several values side by side."""
    PUT = "put"
    """Puts picked elements back among others."""


@dataclass(frozen=True)
class Linear(Operation):
    """Linear or piecewise linear in its live operands; constants among them add up.

    Attributes:
        hides_constants: Whether it is affine in operands of which autograd may record nothing, such
            as buffers and numbers.
        movement: How it moves elements.
        keeps_order: Whether it gives the elements another shape and leaves them in their order.
    """

    role: ClassVar[Role] = Role.LINEAR

    hides_constants: bool = False
    movement: Movement | None = None
    keeps_order: bool = False

    def may_hide_constant(self, node: Node) -> bool:
        """Return whether one of the operands of a node was not recorded."""
        edges = node.next_functions
        unrecorded = len(edges) == 1 or any(child is None for child, _ in edges)
        return self.hides_constants and unrecorded


@dataclass(frozen=True)
class Identity(Linear):
    """Hands on all operands; a constant among them adds nothing here, but where its output does."""

    is_identity: ClassVar[bool] = True


def constant_of_sum(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """Return the constant operand of an addition, with its factor."""
    return _signed_constant((1.0, float(node._saved_alpha)), constant_of)


def constant_of_difference(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """Return the constant operand of a subtraction, with its sign and factor."""
    return _signed_constant((1.0, -float(node._saved_alpha)), constant_of)


def _signed_constant(signs: tuple[float, float], constant_of: ConstantOf) -> Tensor | None:
    constants = [constant_of(0), constant_of(1)]
    terms = [s * c for s, c in zip(signs, constants, strict=True) if c is not None]
    return terms[0] if len(terms) == 1 else None


def bounds_offset(node: Node, constant_of: ConstantOf) -> Tensor:
    """Return the bounds, where they hold x back, of a clamp whose bounds are constant tensors.

    A clamp selects one of its three operands, so it is linear in them.
    """
    x: Tensor = node._saved_self
    total = torch.zeros_like(x)
    last = len(node.next_functions) - 1
    for edge, (name, beyond) in enumerate((("min", torch.lt), ("max", torch.gt)), start=1):
        bound: Tensor | None = getattr(node, f"_saved_{name}", None)
        if bound is not None and _is_constant_edge(node, min(edge, last), constant_of):
            total = torch.where(beyond(x, bound), bound, total)
    return total


def maximum_offset(node: Node, constant_of: ConstantOf) -> Tensor:
    """Return the constant operand of `torch.maximum` where it is chosen."""
    return _extremum_offset(node, torch.gt, constant_of)


def minimum_offset(node: Node, constant_of: ConstantOf) -> Tensor:
    """Return the constant operand of `torch.minimum` where it is chosen."""
    return _extremum_offset(node, torch.lt, constant_of)


def _extremum_offset(
    node: Node, chosen: Callable[[Tensor, Tensor], Tensor], constant_of: ConstantOf
) -> Tensor:
    """Return what constants add where they are chosen; equal operands count by half each."""
    x, other = node._saved_self, node._saved_other
    total = torch.zeros_like(torch.maximum(x, other))
    for edge, (own, against) in enumerate(((x, other), (other, x))):
        if _is_constant_edge(node, edge, constant_of):
            fraction = chosen(own, against).to(total.dtype) + 0.5 * (own == against)
            total = total + (own * fraction).masked_fill(fraction == 0, 0)
    return total.detach()


def _is_constant_edge(node: Node, edge: int, constant_of: ConstantOf) -> bool:
    return node.next_functions[edge][0] is None or constant_of(edge) is not None


def note_threshold(node: Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Note with the node of a threshold the number that it puts in place of small values.

    Args:
        node: The node, which keeps nothing of that number.
        args: The arguments of the function that recorded it.
        kwargs: Its keyword arguments.
    """
    node.metadata[_NUMBER] = kwargs.get("value", args[2] if len(args) > 2 else 0.0)


def threshold_offset(node: Node, constant_of: ConstantOf) -> Tensor:
    """Return the number that a threshold puts, where it does, if it was noted."""
    x: Tensor = node._saved_self
    return torch.where(x > node._saved_threshold, 0.0, node.metadata.get(_NUMBER, 0.0)).to(x.dtype)
