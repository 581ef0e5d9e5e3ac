"""Reads attention matrices, and the gradients that reach them, off a recorded graph.

Fused kernels keep query, key and value, which is enough to compute the weights A again and, from
the gradient g of the output, dF/dA = g v'. In eager attention the product A v keeps
both factors, and A is found behind it as the result of a softmax. Nothing needs to be switched off
in the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from libragrad_lightning.backward.graph import (
    AnnotatedGraph,
    AnnotatedNode,
    Function,
    Node,
    Vocabulary,
)
from libragrad_lightning.backward.rules import (
    FusedAttention,
    MatrixProduct,
    WeightedSum,
    fused_value,
    fused_weights,
)

_STEPS = 8
"""How many rearrangements may lie between a softmax and the product with the values."""


@dataclass(frozen=True)
class AttentionSite:
    """A place in the graph where values are weighted by attention.

    Attributes:
        depends_on: The numbers of the explained tensors that the weights or values depend on.
        sequence: The position of the operation in the order of the forward pass.
    """

    depends_on: frozenset[int]
    sequence: int


AttentionSink: TypeAlias = Callable[[AttentionSite, Tensor, Tensor], None]
"""Receives the weights A and dF/dA, both `[B, heads, queries, keys]` or `[B * heads, ...]`."""

_Factors: TypeAlias = Callable[[Node], tuple[Tensor, Tensor]]
"""Reads the weights A and the values v of a node."""


@dataclass(frozen=True)
class AttentionWatch:
    """Reports all attention of a graph to a sink while gradients are computed.

    Pass it in the `watch` argument of `grad`. The gradient is that of the output of the attention
    under the rule set, so dF/dA is taken in the corrected graph even though the rules hold A
    constant.
    """

    sink: AttentionSink

    def __call__(self, graph: AnnotatedGraph) -> Iterator[RemovableHandle]:
        """Register the hooks."""
        for annotated in graph.nodes:
            factors = _factors(annotated, graph.vocabulary)
            if factors is not None:
                yield annotated.node.register_prehook(partial(self._report, annotated, factors))

    def _report(
        self,
        annotated: AnnotatedNode,
        factors: _Factors,
        gradients: tuple[Tensor | None, ...],
    ) -> None:
        if gradients[0] is not None:
            node = annotated.node
            weights, values = factors(node)
            site = AttentionSite(annotated.depends_on, node._sequence_nr())
            self.sink(site, weights, gradients[0] @ values.transpose(-2, -1))


def _factors(annotated: AnnotatedNode, vocabulary: Vocabulary) -> _Factors | None:
    """Return what reads the weights and values of a node, None if it has none to show."""
    operation, node = annotated.operation, annotated.node
    if isinstance(operation, FusedAttention):
        return _fused_factors
    product = vocabulary.of(node)
    if not isinstance(product, MatrixProduct) or product.saved_factors is None:
        return None
    if isinstance(operation, WeightedSum):
        weighs_first = operation.weights == product.factors[0]
    else:
        weighs_first = _follows_softmax(node, product, vocabulary)
    return product.saved_factors if weighs_first else None


def _fused_factors(node: Node) -> tuple[Tensor, Tensor]:
    return fused_weights(node), fused_value(node)


def _follows_softmax(node: Node, product: MatrixProduct, vocabulary: Vocabulary) -> bool:
    """Whether the first factor of a product is a softmax, up to rearrangements."""
    current = node.next_functions[product.factors[0]][0]
    for _ in range(_STEPS):
        operation = vocabulary.of(current)
        if operation is not None and operation.function is Function.SOFTMAX:
            return True
        if current is None or len(current.next_functions) != 1:
            return False
        current = current.next_functions[0][0]
    return False
