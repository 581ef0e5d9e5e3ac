"""Treatments: what can be done to the gradient at an operation of a given role.

A treatment decides, from an operation and the flows of its operands, how the gradients that one
node hands on are weighed or rewritten. Rule sets are tables of treatments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.backward.operations import AttentionPart, Node, Operation

Gradients: TypeAlias = tuple[Tensor | None, ...]
"""The gradients of a node's operands, or of its outputs; None stands for zero."""


class Flow(Enum):
    """How a value depends on the explained tensor in the corrected graph."""

    CONSTANT = "constant"
    """Not at all: it depends on parameters alone."""
    DEAD = "dead"
    """Only through edges that a rule has pruned."""
    LIVE = "live"
    """Through at least one path that carries a gradient."""


@dataclass(frozen=True)
class Correction:
    """What is done to the gradients that one node hands on.

    Attributes:
        weights: One factor for every edge; 0 prunes the edge, 1 leaves the gradient alone.
        rewrite: Replaces the gradient of one edge, before the weights apply: a function of the
            node, that edge's ordinary gradient and the gradient of the node's output.
        rewritten: That edge.
        dead_outputs: The outputs of the node that are held constant while others are not.
    """

    weights: tuple[float, ...]
    rewrite: Callable[[Node, Tensor, Tensor], Tensor] | None = None
    rewritten: int = 0
    dead_outputs: tuple[int, ...] = ()

    def hook(self, node: Node) -> Callable[[Gradients, Gradients], Gradients]:
        """Return the correction as a hook on the node."""

        def corrected(incoming: Gradients, outgoing: Gradients) -> Gradients:
            gradients = list(incoming)
            ordinary, received = gradients[self.rewritten], outgoing[0]
            if self.rewrite is not None and ordinary is not None and received is not None:
                # Parameters of higher precision promote the product.
                rewritten = self.rewrite(node, ordinary, received)
                gradients[self.rewritten] = rewritten.to(ordinary.dtype)
            return tuple(_weigh(g, w) for g, w in zip(gradients, self.weights, strict=True))

        return corrected


def _weigh(gradient: Tensor | None, weight: float) -> Tensor | None:
    if gradient is None or weight == 0.0:
        return None
    return gradient if weight == 1.0 else gradient * weight


Treatment: TypeAlias = Callable[[Operation, Node, Sequence[Flow]], Correction]
"""Decides the correction of a node from its operation and the flows of its operands."""


def keep(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Leave the ordinary gradient (locally affine operations are complete, Thm 1)."""
    return Correction((1.0,) * len(flows))


def prune(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Hold the value of the operation constant (Thm 5), except for outputs that are linear."""
    if not operation.linear_outputs:
        return Correction((0.0,) * len(flows))
    outputs = range(len(node._input_metadata))
    dead = tuple(i for i in outputs if i not in operation.linear_outputs)
    return Correction((1.0,) * len(flows), dead_outputs=dead)


def share(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Give each of n live factors 1/n of its gradient (Thm 4); hold the others constant (Thm 5)."""
    return Correction(_shared_among(operation.factors, flows))


def _shared_among(factors: Sequence[int], flows: Sequence[Flow]) -> tuple[float, ...]:
    live = [i for i in factors if flows[i] is Flow.LIVE]
    weights = [1.0] * len(flows)
    for i in factors:
        weights[i] = 1.0 / len(live) if i in live else 0.0
    return tuple(weights)


def hold_gate(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Scale the gradient of x * g(x) by the constant g(x) (Thm 5).

    Where the activation is written out, its product does so if the gate gets no gradient.
    """
    if operation.written:
        return hold_others(operation, node, flows)

    def rewrite(node: Node, ordinary: Tensor, outgoing: Tensor) -> Tensor:
        if operation.input_gradient is not None:
            return operation.input_gradient(node, outgoing)
        assert operation.gate is not None
        return outgoing * operation.gate(node)

    live = flows.index(Flow.LIVE) if Flow.LIVE in flows else 0
    return Correction((1.0,) * len(flows), rewrite, live)


def hold_others(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Keep the gradients of some operands alone, such as the numerator (Thm 5)."""
    return Correction(tuple(float(i in operation.factors) for i in range(len(flows))))


def hold_statistics(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Differentiate a normalisation with the statistics that scale held constant (section 3.4).

    A scale that depends on the explained tensors too is a second factor (Thm 4).
    """
    source, *scales = operation.factors
    scales = [i for i in scales if flows[i] is not Flow.CONSTANT]
    scale_alone = flows[source] is not Flow.LIVE and any(flows[i] is Flow.LIVE for i in scales)
    if flows[source] is Flow.CONSTANT or scale_alone:
        return keep(operation, node, flows)

    def rewrite(node: Node, ordinary: Tensor, outgoing: Tensor) -> Tensor:
        assert operation.input_gradient is not None
        return operation.input_gradient(node, outgoing)

    weights = _shared_among([source, *scales], flows) if scales else (1.0,) * len(flows)
    return Correction(weights, rewrite, source)


def divide_by_degree(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Divide the gradient of a homogeneous function by its degree (Euler's theorem).

    A negative degree makes the value a reciprocal, which is held constant (Cor 2). An exponent that
    depends on the explained tensors is held constant too (Thm 5).
    """
    assert operation.gate is not None
    degree = operation.gate(node)
    if bool(torch.all(torch.as_tensor(degree) <= 0)):
        return prune(operation, node, flows)
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


@dataclass(frozen=True)
class WeighAttention:
    """A treatment that scales the gradients of attention's weights A and values v in A v.

    Attention that is written out is treated as the fused kernels are: the factor at the average is
    all that is done, and the softmax and the product of queries and keys keep their gradients.

    Attributes:
        weights: The factor of dF/dA, from which query and key get their gradients; 0 holds A.
        values: The factor of dF/dv.
    """

    weights: float
    values: float

    def __call__(self, operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
        """Return the weights of the edges; a mask gets no gradient."""
        if operation.part is AttentionPart.SOFTMAX:
            return (keep if self.weights else prune)(operation, node, flows)
        if operation.part is AttentionPart.SCORES:
            return (keep if self.weights else share)(operation, node, flows)
        if operation.part is AttentionPart.AVERAGE:
            factors = dict(zip(operation.factors, (self.weights, self.values), strict=True))
            return Correction(tuple(factors.get(i, 1.0) for i in range(len(flows))))
        values = self.values
        if flows[0] is flows[1] is Flow.CONSTANT:  # a linear map of the values
            values = 1.0
        return Correction((self.weights, self.weights, values, *[0.0] * (len(flows) - 3)))
