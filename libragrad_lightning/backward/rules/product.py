"""Products: their gradient is divided among the factors.

FullGrad counts the product of n complete factors n times (Prop 1). It counts once if the gradients
of the factors are weighed by numbers that add up to one (Thm 4), here 1/n each, or if all factors
but one are held constant (Thm 5). A factor that is a parameter makes the product a linear map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Product(Operation):
    """A product of operands, to which another one may be added.

    Attributes:
        factors: The edges of the factors.
        mixes: Whether it sums over an axis of the factors, as a matrix product or a convolution.
    """

    role: ClassVar[Role] = Role.PRODUCT

    factors: tuple[int, ...] = (0, 1)
    mixes: bool = False

    @property
    def factor_edges(self) -> tuple[int, ...]:
        """The factors."""
        return self.factors

    def may_hide_constant(self, node: Node) -> bool:
        """Return whether there is an addend, and it or all factors were not recorded."""
        recorded = [child is not None for child, _ in node.next_functions]
        factors = [recorded.pop(i) for i in sorted(self.factors, reverse=True)]
        return self.additive is not None and not (any(factors) and all(recorded))


@dataclass(frozen=True)
class ElementwiseProduct(Product):
    """A product of the elements at the same place, such as that of an activation and its gate."""


@dataclass(frozen=True)
class Convolution(Product):
    """A convolution, which may add a bias."""

    mixes: bool = True

    def may_hide_constant(self, node: Node) -> bool:
        """Return whether there is a bias, and it or all factors were not recorded."""
        (channels,) = node._saved_bias_sym_sizes_opt
        return channels > 0 and super().may_hide_constant(node)


@dataclass(frozen=True)
class MatrixProduct(Product):
    """A matrix product of two factors, such as those of attention.

    Attributes:
        batched: Whether there is a pair of matrices for each image and head.
        saved_factors: Reads both factors, in the order of their edges, from what was saved; where
            it is None, attention that ends in the product has no matrix to show.
    """

    mixes: bool = True
    batched: bool = False
    saved_factors: Callable[[Node], tuple[Tensor, Tensor]] | None = None


def divide_gradient(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Give each of n live factors 1/n of its gradient (Thm 4); hold the others constant (Thm 5)."""
    return Correction(divided_weights(operation.factor_edges, flows))


def divided_weights(factors: Sequence[int], flows: Sequence[Flow]) -> tuple[float, ...]:
    """Return 1/n for each of n live factors, 0 for the other factors, and 1 for what is none."""
    live = [i for i in factors if flows[i] is Flow.LIVE]
    weights = [1.0] * len(flows)
    for i in factors:
        weights[i] = 1.0 / len(live) if i in live else 0.0
    return tuple(weights)


def hold_dead_factors(
    operation: Operation, correction: Correction, flows: Sequence[Flow]
) -> Correction:
    """Hold dead factors constant, whatever the rule of their role says (Thm 5).

    A dead factor beside a live one is a constant under every rule set: a gradient that entered it
    could only end in biases that do not add to the output. A product of dead factors alone is a
    constant that may be added to something live; the last of them, the value in attention, keeps
    its gradient and leads to it.
    """
    factors = operation.factor_edges
    dead = [i for i in factors if flows[i] is Flow.DEAD]
    if not dead:
        return correction
    live = any(flows[i] is Flow.LIVE for i in factors)
    held = dead if live else dead[:-1]
    weights = [0.0 if i in held else w for i, w in enumerate(correction.weights)]
    if not live:
        weights[dead[-1]] = 1.0
    return correction.weighed(weights)


def scaled_addend(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """Return the first operand of addmm and its relatives, times beta."""
    addend = constant_of(0)
    return None if addend is None else addend * float(node._saved_beta)


def plain_addend(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """Return the first operand."""
    return constant_of(0)


def batched_factors(node: Node) -> tuple[Tensor, Tensor]:
    """Return the factors of a batched matrix product."""
    return node._saved_self, node._saved_mat2


def added_factors(node: Node) -> tuple[Tensor, Tensor]:
    """Return the factors of a batched matrix product that something is added to."""
    return node._saved_batch1, node._saved_batch2
