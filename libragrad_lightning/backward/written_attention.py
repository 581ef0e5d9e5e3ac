"""Recognises attention that is written out, softmax(q k') v, by its place in the graph.

It consists of three operations that mean something else elsewhere: a product of queries and keys,
a softmax, which may be written out too, and a product of its result A with the values. A softmax is
taken for attention if its scores come from a product of two values of the graph, or from a batched
product with a constant (the queries of a pooling), and if A is a factor of a matrix product with
values that depend on the explained tensors. Everything else, such as gates, softmax pooling of
linear scores, or averages that are written with elementwise products, is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from libragrad_lightning.backward.operations import (
    AttentionPart,
    Edge,
    Node,
    Operation,
    Role,
    Vocabulary,
)
from libragrad_lightning.backward.written_softmax import Softmax, SoftmaxReader

_MATRIX_PRODUCTS = ("BmmBackward", "MmBackward", "BaddbmmBackward", "AddmmBackward")
_BATCHED = ("BmmBackward", "BaddbmmBackward")
_STEPS = 32
"""How many operations may lie between a softmax and the products before and after it."""


def written_attention(
    nodes: Sequence[Node], reached: Callable[[Edge], bool], vocabulary: Vocabulary
) -> dict[Node, Operation]:
    """Find the nodes that compute attention together.

    Args:
        nodes: The nodes of a graph, inputs first.
        reached: Whether the value at an edge depends on an explained tensor.
        vocabulary: The roles that the nodes have elsewhere.

    Returns:
        The operations, of the role `ATTENTION`, that take the place of those in the vocabulary.
    """
    search = _Search(reached, vocabulary)
    for node in nodes:
        if node.name().startswith(_MATRIX_PRODUCTS):
            search.visit(node)
    return search.found


@dataclass
class _Search:
    reached: Callable[[Edge], bool]
    vocabulary: Vocabulary
    found: dict[Node, Operation] = field(default_factory=dict)

    def visit(self, product: Node) -> None:
        """Note the parts of an attention if its average is this product."""
        operation = self.vocabulary.get(product.name())
        if operation is None or not self._joins(product, operation):
            return
        for weights, values in (operation.factors, operation.factors[::-1]):
            softmax = self._softmax_behind(product.next_functions[weights])
            if softmax is None:
                continue
            scores = self._scores_behind(softmax)
            if scores is not None:
                for node in scores:
                    self._note(node, AttentionPart.SCORES, self.vocabulary[node.name()].factors)
                for node in softmax.nodes:
                    self._note(node, AttentionPart.SOFTMAX, ())
                self._note(product, AttentionPart.AVERAGE, (weights, values))
                return

    def _note(self, node: Node, part: AttentionPart, factors: tuple[int, ...]) -> None:
        operation = self.vocabulary[node.name()]
        self.found[node] = replace(operation, role=Role.ATTENTION, part=part, factors=factors)

    def _softmax_behind(self, edge: Edge) -> Softmax | None:
        """Follow the only path through linear operations."""
        reader = SoftmaxReader(self.reached, self.vocabulary)
        for _ in range(_STEPS):
            node = edge[0]
            if node is None or not self.reached(edge):
                return None
            softmax = reader.read(node)
            if softmax is not None:
                return softmax
            edges = self._reached_edges(edge)
            if len(edges) != 1 or not self._is_linear(node):
                return None
            edge = edges[0]
        return None

    def _scores_behind(self, softmax: Softmax) -> list[Node] | None:
        """Return the products of queries and keys that add to the scores, None if there are none.

        Products with constants, such as the queries of a pooling, need no correction. One matrix
        with a constant may lie between: it mixes the heads, or turns queries into biases.
        """
        products: list[Node] = []
        constant_queries = False
        stack = [(edge, 0) for edge in softmax.scores]
        for _ in range(_STEPS):
            if not stack:
                break
            (node, number), matrices = stack.pop()
            operation = None if node is None else self._elsewhere(node)
            if operation is None:
                continue
            if node.name().startswith(_MATRIX_PRODUCTS) and self._joins(node, operation):
                products.append(node)
            elif self._is_linear(node):
                constant_queries |= node.name().startswith(_BATCHED)
                matrices += node.name().startswith((*_MATRIX_PRODUCTS, "ConvolutionBackward"))
                if matrices <= 1:
                    stack += [(edge, matrices) for edge in self._reached_edges((node, number))]
        return products if products or constant_queries else None

    def _elsewhere(self, node: Node) -> Operation | None:
        """The role of a node unless it is a softmax or an average of other attention."""
        found = self.found.get(node)
        if found is not None and found.part is not AttentionPart.SCORES:
            return None
        return self.vocabulary.get(node.name())

    def _reached_edges(self, value: Edge) -> list[Edge]:
        node, number = value
        operation = self.vocabulary.get(node.name())
        edges = node.next_functions
        if operation is not None and operation.identity:
            edges = edges[number : number + 1]
        return [edge for edge in edges if self.reached(edge)]

    def _joins(self, node: Node, operation: Operation) -> bool:
        """Whether both factors of a product depend on the explained tensors."""
        if operation.role is not Role.PRODUCT or len(operation.factors) != 2:
            return False
        return all(self.reached(node.next_functions[i]) for i in operation.factors)

    def _is_linear(self, node: Node) -> bool:
        operation = self.vocabulary.get(node.name())
        if operation is None:
            return False
        if operation.role is Role.QUOTIENT:
            return not self.reached(node.next_functions[1])
        return operation.role is Role.LINEAR or (
            operation.role is Role.PRODUCT and not self._joins(node, operation)
        )
