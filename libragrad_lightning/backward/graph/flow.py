"""How a value depends on what is explained, and what is done to the gradients of one node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from torch import Tensor

from libragrad_lightning.backward.graph.edges import Node

Gradients: TypeAlias = tuple[Tensor | None, ...]
"""The gradients of a node's operands, or of its outputs; None stands for zero."""

Rewrite: TypeAlias = Callable[[Node, Tensor, Tensor], Tensor]
"""Gives the gradient of one operand, from the node, the ordinary gradient of this operand and the
gradient of the node's output."""


def handed_on(node: Node, received: Gradients) -> Gradients:
    """Return the gradients that a node hands on, which autograd can differentiate again."""
    call = node.apply if hasattr(node, "apply") else node  # nodes that are written in Python
    handed: Gradients | Tensor | None = call(*received)
    return handed if isinstance(handed, tuple) else (handed,)


class Flow(Enum):
    """How a value depends on the explained tensors in the corrected graph."""

    CONSTANT = "constant"
    """Not at all: it depends on parameters alone."""
    DEAD = "dead"
    """Only through edges at which a rule stops the gradient."""
    LIVE = "live"
    """Through at least one path that carries a gradient."""


@dataclass(frozen=True)
class Correction:
    """What is done to the gradients that one node hands on.

    Attributes:
        weights: One factor for every edge; 0 stops the gradient, 1 leaves it alone.
        rewrite: Replaces the gradient of one edge, before the weights apply.
        rewritten: That edge.
        dead_outputs: The outputs of the node that are held constant while others are not.
    """

    weights: tuple[float, ...]
    rewrite: Rewrite | None = None
    rewritten: int = 0
    dead_outputs: tuple[int, ...] = ()

    @classmethod
    def ordinary(cls, flows: Sequence[Flow]) -> Correction:
        """Return the correction that leaves the gradients of all operands alone."""
        return cls((1.0,) * len(flows))

    def weighed(self, weights: Sequence[float]) -> Correction:
        """Return the same correction with other weights."""
        return replace(self, weights=tuple(weights))

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
