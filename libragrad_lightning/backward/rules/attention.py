"""Attention A v: the weights A = softmax(q k') are held constant, the values stay live.

The product of weights and values is complete if the weights, an arbitrary function, are held
constant (Thm 5). A fused kernel is one node; eager attention consists of nodes of three kinds,
which are recognized by their place in the graph (`eager_attention`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.backward.graph import Correction, Flow, Node, Operation, Role
from libragrad_lightning.backward.rules.product import divide_gradient
from libragrad_lightning.backward.rules.rule import ordinary_gradient, stop_gradient


@dataclass(frozen=True)
class FusedAttention(Operation):
    """All of an attention; the edges are query, key, value and perhaps a mask."""

    role: ClassVar[Role] = Role.ATTENTION

    @property
    def factor_edges(self) -> tuple[int, ...]:
        """The value."""
        return (2,)


@dataclass(frozen=True)
class AttentionScores(Operation):
    """The product of queries and keys of an eager attention.

    Attributes:
        factors: Their edges.
    """

    role: ClassVar[Role] = Role.ATTENTION

    factors: tuple[int, ...]

    @property
    def factor_edges(self) -> tuple[int, ...]:
        """Queries and keys."""
        return self.factors


@dataclass(frozen=True)
class AttentionSoftmax(Operation):
    """A node of the softmax of an eager attention, from the scores to the weights A."""

    role: ClassVar[Role] = Role.ATTENTION


@dataclass(frozen=True)
class WeightedSum(Operation):
    """The product of weights and values of an eager attention.

    Attributes:
        weights: The edge of A.
        values: The edge of v.
    """

    role: ClassVar[Role] = Role.ATTENTION

    weights: int
    values: int

    @property
    def factor_edges(self) -> tuple[int, ...]:
        """Weights and values."""
        return self.weights, self.values


AttentionOperation: TypeAlias = FusedAttention | AttentionScores | AttentionSoftmax | WeightedSum


@dataclass(frozen=True)
class WeighAttention:
    """A rule that scales the gradients of attention's weights A and values v in A v.

    Eager attention gets the gradients of the fused kernels: the factor at the weighted sum is all
    that is done, and the softmax and the product of queries and keys keep their gradients.

    Attributes:
        weights: The factor of dF/dA, from which query and key get their gradients; 0 holds A.
        values: The factor of dF/dv.
    """

    weights: float
    values: float

    def __call__(
        self, operation: AttentionOperation, node: Node, flows: Sequence[Flow]
    ) -> Correction:
        """Return the weights of the edges; a mask gets no gradient."""
        if isinstance(operation, AttentionSoftmax):
            return (ordinary_gradient if self.weights else stop_gradient)(operation, node, flows)
        if isinstance(operation, AttentionScores):
            return (ordinary_gradient if self.weights else divide_gradient)(operation, node, flows)
        if isinstance(operation, WeightedSum):
            factors = {operation.weights: self.weights, operation.values: self.values}
            return Correction(tuple(factors.get(i, 1.0) for i in range(len(flows))))
        values = self.values
        if flows[0] is flows[1] is Flow.CONSTANT:  # a linear map of the values
            values = 1.0
        return Correction((self.weights, self.weights, values, *[0.0] * (len(flows) - 3)))


def saved_output(node: Node) -> Tensor:
    """Return the value of a fused attention node."""
    value: Tensor = node._saved_output
    return value


def fused_value(node: Node) -> Tensor:
    """Return the values `[B, heads, keys, d]` of a fused attention node."""
    value: Tensor = node._saved_value
    return value


def fused_weights(node: Node) -> Tensor:
    """Return the attention weights `[B, heads, queries, keys]` of a fused attention node."""
    query, key = node._saved_query, node._saved_key
    scale = getattr(node, "_saved_scale", None) or 1 / math.sqrt(query.shape[-1])
    scores = query @ key.transpose(-2, -1) * scale
    mask = getattr(node, "_saved_attn_mask", None)
    mask = mask if mask is not None else getattr(node, "_saved_attn_bias", None)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        scores = scores + mask
    if getattr(node, "_saved_is_causal", False):
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
    return scores.softmax(-1)
