"""Reads attention matrices, and the gradients that reach them, off a recorded graph.

Fused kernels keep query, key and value, which is enough to compute the weights A again and, from
the gradient g of the output, dF/dA = g v'. Where attention is written out, the product A v keeps
both factors, and A is found behind it as the result of a softmax. Nothing needs to be switched off
in the forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from libragrad_lightning.backward.operations import AttentionPart, Node, Role
from libragrad_lightning.backward.readings import GraphReading, NodeReading

_SOFTMAX = ("SoftmaxBackward", "SafeSoftmaxBackward")
_STEPS = 8
"""How many rearrangements may lie between a softmax and the product with the values."""


@dataclass(frozen=True)
class AttentionSite:
    """A place in the graph where values are weighted by attention.

    Attributes:
        reach: Bit i is set if the weights or values depend on explained tensor i.
        sequence: The position of the operation in the order of the forward pass.
    """

    reach: int
    sequence: int


AttentionSink: TypeAlias = Callable[[AttentionSite, Tensor, Tensor], None]
"""Receives the weights A and dF/dA, both `[B, heads, queries, keys]` or `[B * heads, ...]`."""


@dataclass(frozen=True)
class AttentionWatch:
    """Reports all attention of a graph to a sink while gradients are computed.

    Pass it in the `watch` argument of `grad`. The gradient is that of the output of the attention
    under the rule set, so dF/dA is taken in the corrected graph even though the rules hold A
    constant.
    """

    sink: AttentionSink

    def __call__(self, reading: GraphReading) -> Iterator[RemovableHandle]:
        """Register the hooks."""
        for r in reading.nodes:
            if _is_fused(r):
                yield r.node.register_prehook(self._hook(r, fused_weights, fused_value))
            elif r.node.name().startswith("BmmBackward") and _averages(r):
                yield r.node.register_prehook(
                    self._hook(r, lambda node: node._saved_self, lambda node: node._saved_mat2)
                )

    def _hook(
        self,
        reading: NodeReading,
        weights: Callable[[Node], Tensor],
        value: Callable[[Node], Tensor],
    ) -> Callable[[tuple[Tensor | None, ...]], None]:
        node = reading.node
        site = AttentionSite(reading.reach, node._sequence_nr())

        def hook(gradients: tuple[Tensor | None, ...]) -> None:
            if gradients[0] is not None:
                gradient = gradients[0] @ value(node).transpose(-2, -1)
                self.sink(site, weights(node), gradient)

        return hook


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


def _is_fused(reading: NodeReading) -> bool:
    operation = reading.operation
    if operation is None or operation.role is not Role.ATTENTION:
        return False
    return operation.part is AttentionPart.FUSED


def _averages(reading: NodeReading) -> bool:
    """Whether the first factor of a product is attention weights."""
    operation = reading.operation
    if operation is not None and operation.part is AttentionPart.AVERAGE:
        return operation.factors[0] == 0
    return _follows_softmax(reading.node)


def _follows_softmax(node: Node) -> bool:
    """Whether the first factor of a product is a softmax, up to rearrangements."""
    current = node.next_functions[0][0]
    for _ in range(_STEPS):
        if current is None:
            return False
        if current.name().startswith(_SOFTMAX):
            return True
        if len(current.next_functions) != 1:
            return False
        current = current.next_functions[0][0]
    return False
