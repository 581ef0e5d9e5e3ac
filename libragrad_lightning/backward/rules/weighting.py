"""Weighted combinations such as `lerp` and samples of a grid: the weights are held constant.

What combines values by weights, or picks them at places, that may depend on the explained tensors
is linear in the values once the weights are constant (Thm 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from libragrad_lightning.backward.graph import (
    ConstantOf,
    Correction,
    Flow,
    Node,
    Operation,
    Role,
)
from libragrad_lightning.backward.rules.rule import gradient_of


@dataclass(frozen=True)
class Weighting(Operation):
    """A weighted combination of operands.

    Attributes:
        values: The edges of what is combined.
    """

    role: ClassVar[Role] = Role.WEIGHTING

    values: tuple[int, ...]

    @property
    def factor_edges(self) -> tuple[int, ...]:
        """The values."""
        return self.values


def stop_weights(operation: Weighting, node: Node, flows: Sequence[Flow]) -> Correction:
    """Keep the gradients of the values alone (Thm 5)."""
    return gradient_of(operation.values, flows)


def constant_end(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """Return the weighted constant operand of lerp with a tensor of weights."""
    weights = (1 - node._saved_weight, node._saved_weight)
    constants = [constant_of(0), constant_of(1)]
    terms = [w * c for w, c in zip(weights, constants, strict=True) if c is not None]
    return terms[0] if len(terms) == 1 else None
