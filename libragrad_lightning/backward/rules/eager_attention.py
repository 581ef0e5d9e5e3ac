"""Recognizes eager attention, softmax(q k') v in several operations, by its place in the graph.

It consists of three operations that mean something else elsewhere: a product of queries and keys,
a softmax, which may be eager too, and the sum of values that its result A weights. A softmax is
taken for attention if its scores come from a product of two values of the graph, or from a batched
product with a constant (the queries of a pooling), and if A is a factor of a matrix product with
values that depend on the explained tensors. Everything else, such as gates, softmax pooling of
linear scores, or averages that are computed by elementwise products, is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from libragrad_lightning.backward.graph import (
    Edge,
    Node,
    Operation,
    RecordedGraph,
    Role,
    Vocabulary,
)
from libragrad_lightning.backward.rules.attention import (
    AttentionScores,
    AttentionSoftmax,
    WeightedSum,
)
from libragrad_lightning.backward.rules.eager_softmax import Softmax, SoftmaxReader
from libragrad_lightning.backward.rules.product import MatrixProduct, Product
from libragrad_lightning.backward.rules.quotient import Quotient

_STEPS = 32
"""How many operations may lie between a softmax and the products before and after it."""


def eager_attention(graph: RecordedGraph, vocabulary: Vocabulary) -> Mapping[Node, Operation]:
    """Find the nodes that compute attention together.

    Args:
        graph: The graph.
        vocabulary: What its nodes compute elsewhere, by their names.

    Returns:
        The operations, of the role `ATTENTION`, that take the place of those in the vocabulary.
    """
    search = _Search(graph, vocabulary)
    for node in graph.nodes:
        search.visit(node)
    return search.found


@dataclass
class _Search:
    graph: RecordedGraph
    vocabulary: Vocabulary
    found: dict[Node, Operation] = field(default_factory=dict)

    def visit(self, product: Node) -> None:
        """Note the parts of an attention if its weighted sum is this product."""
        operation = self.vocabulary.of(product)
        if not isinstance(operation, MatrixProduct) or not self._is_joint(product, operation):
            return
        for weights, values in (operation.factors, operation.factors[::-1]):
            softmax = self._softmax_behind(product.next_functions[weights])
            if softmax is None:
                continue
            scores = self._scores_behind(softmax)
            if scores is not None:
                self._note_weights(softmax, scores)
                self.found[product] = WeightedSum(
                    weights, values, additive=operation.additive, value=operation.value
                )
                return

    def _note_weights(self, softmax: Softmax, scores: Mapping[Node, MatrixProduct]) -> None:
        for node, product in scores.items():
            self.found[node] = AttentionScores(
                product.factors, additive=product.additive, value=product.value
            )
        for node in softmax.nodes:
            operation = self.vocabulary[node.name()]
            self.found[node] = AttentionSoftmax(additive=operation.additive, value=operation.value)

    def _softmax_behind(self, edge: Edge) -> Softmax | None:
        """Follow the only path through linear operations."""
        reader = SoftmaxReader(self.graph, self.vocabulary)
        for _ in range(_STEPS):
            node = edge[0]
            if node is None or not self.graph.is_explained(edge):
                return None
            softmax = reader.read(node)
            if softmax is not None:
                return softmax
            edges = self._explained_edges(edge)
            if len(edges) != 1 or not self._is_linear(node):
                return None
            edge = edges[0]
        return None

    def _scores_behind(self, softmax: Softmax) -> Mapping[Node, MatrixProduct] | None:
        """Return the products of queries and keys that add to the scores, None if there are none.

        Products with constants, such as the queries of a pooling, need no correction. One matrix
        with a constant may lie between: it mixes the heads, or turns queries into biases.
        """
        products: dict[Node, MatrixProduct] = {}
        constant_queries = False
        stack = [(edge, 0) for edge in softmax.scores]
        for _ in range(_STEPS):
            if not stack:
                break
            (node, number), matrices = stack.pop()
            operation = None if node is None else self._elsewhere(node)
            if operation is None:
                continue
            if isinstance(operation, MatrixProduct) and self._is_joint(node, operation):
                products[node] = operation
            elif self._is_linear(node):
                constant_queries |= isinstance(operation, MatrixProduct) and operation.batched
                matrices += isinstance(operation, Product) and operation.mixes
                if matrices <= 1:
                    stack += [(edge, matrices) for edge in self._explained_edges((node, number))]
        return products if products or constant_queries else None

    def _elsewhere(self, node: Node) -> Operation | None:
        """The operation of a node unless it is a softmax or a weighted sum of other attention."""
        if isinstance(self.found.get(node), AttentionSoftmax | WeightedSum):
            return None
        return self.vocabulary.of(node)

    def _explained_edges(self, value: Edge) -> list[Edge]:
        node, number = value
        operation = self.vocabulary.of(node)
        edges = node.next_functions
        if operation is not None and operation.is_identity:
            edges = edges[number : number + 1]
        return [edge for edge in edges if self.graph.is_explained(edge)]

    def _is_joint(self, node: Node, product: Product) -> bool:
        """Whether both factors of a product depend on the explained tensors."""
        if len(product.factors) != 2:
            return False
        return all(self.graph.is_explained(node.next_functions[i]) for i in product.factors)

    def _is_linear(self, node: Node) -> bool:
        operation = self.vocabulary.of(node)
        if isinstance(operation, Quotient):
            return not self.graph.is_explained(node.next_functions[operation.denominator])
        if isinstance(operation, Product):
            return not self._is_joint(node, operation)
        return operation is not None and operation.role is Role.LINEAR
