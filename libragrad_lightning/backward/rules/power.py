"""Powers and other homogeneous functions: the gradient is divided by the degree.

A function of degree k counts k times in FullGrad (Euler's theorem; a product of k equal factors in
Prop 1). A negative degree makes it a reciprocal, which is held constant (Cor 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from libragrad_lightning.backward.graph import (
    Correction,
    Flow,
    Node,
    Operation,
    Role,
    wrapped_axis,
)
from libragrad_lightning.backward.rules.rule import stop_gradient


@dataclass(frozen=True)
class Power(Operation):
    """A homogeneous function of its first operand.

    Attributes:
        degree: The degree, read from the node; a tensor if it differs by element.
    """

    role: ClassVar[Role] = Role.POWER

    degree: Callable[[Node], Tensor | float]


def divide_by_degree(operation: Power, node: Node, flows: Sequence[Flow]) -> Correction:
    """Divide the gradient of a homogeneous function by its degree (Euler's theorem).

    A negative degree makes the value a reciprocal, which is held constant (Cor 2). An exponent that
    depends on the explained tensors is held constant too (Thm 5).
    """
    degree = operation.degree(node)
    if bool(torch.all(torch.as_tensor(degree) <= 0)):
        return stop_gradient(operation, node, flows)
    base = (1.0, *[0.0] * (len(flows) - 1))
    if isinstance(degree, Tensor):
        return Correction(base, _rewrite_power(degree))
    return Correction(tuple(b / degree for b in base))


def _rewrite_power(degree: Tensor) -> Callable[[Node, Tensor, Tensor], Tensor]:
    """Write x to the power k as x times a constant; exponents may be of either sign by element."""

    def rewrite(node: Node, ordinary: Tensor, outgoing: Tensor) -> Tensor:
        gate = node._saved_self ** (degree - 1)
        return (outgoing * gate).sum_to_size(ordinary.shape)

    return rewrite


def exponent(node: Node) -> float:
    """Return the exponent of a power."""
    return float(node._saved_exponent)


def exponents(node: Node) -> Tensor:
    """Return the exponents of a power whose exponent is a tensor."""
    return node._saved_exponent


def number_of_factors(node: Node) -> float:
    """Return how many elements a product over one or all axes multiplies."""
    shape = node._saved_self.shape
    along = hasattr(node, "_saved_dim")
    return float(shape[wrapped_axis(node._saved_dim)] if along else shape.numel())


def square_root_degree(node: Node) -> float:
    """Return the degree of a square root."""
    return 0.5


def power_value(node: Node) -> Tensor:
    """Return x to a power."""
    value: Tensor = node._saved_self**node._saved_exponent
    return value
