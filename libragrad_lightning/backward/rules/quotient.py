"""Quotients: the denominator is held constant.

FullGrad counts a quotient of complete maps 0 times (Prop 2), and once if the reciprocal of the
denominator is a constant factor (Cor 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from libragrad_lightning.backward.graph import Correction, Flow, Node, Operation, Role
from libragrad_lightning.backward.rules.rule import gradient_of


@dataclass(frozen=True)
class Quotient(Operation):
    """A quotient of two operands.

    Attributes:
        numerator: Its edge.
        denominator: Its edge.
    """

    role: ClassVar[Role] = Role.QUOTIENT

    numerator: int = 0
    denominator: int = 1

    @property
    def factor_edges(self) -> tuple[int, ...]:
        """The numerator."""
        return (self.numerator,)


def stop_denominator(operation: Quotient, node: Node, flows: Sequence[Flow]) -> Correction:
    """Keep the gradient of the numerator alone (Cor 2)."""
    return gradient_of((operation.numerator,), flows)


def quotient_value(node: Node) -> Tensor:
    """Return the quotient of two tensors."""
    value: Tensor = node._saved_self / node._saved_other
    return value
