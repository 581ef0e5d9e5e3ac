"""Recognizes an eager softmax, one of several operations, by its place in the graph.

``e / e.sum(-1, keepdim=True)`` with ``e = (s - s.amax(-1, keepdim=True)).exp()`` is a softmax of
the scores s, and so are ``s.log_softmax(-1).exp()`` and ``(s - s.logsumexp(-1, True)).exp()``. What
is subtracted from the scores, and what is added to the sum, changes nothing about that.
"""

from __future__ import annotations

from dataclasses import dataclass

from libragrad_lightning.backward.graph import (
    Edge,
    Function,
    Node,
    Operation,
    RecordedGraph,
    Role,
    Vocabulary,
)
from libragrad_lightning.backward.rules.product import ElementwiseProduct
from libragrad_lightning.backward.rules.quotient import Quotient

_STEPS = 32
"""How many operations may lie between the parts."""


@dataclass(frozen=True)
class Softmax:
    """The nodes that compute normalized weights together, from the weights back.

    Attributes:
        nodes: Those that mean something else elsewhere.
        scores: The values that they are computed from.
    """

    nodes: tuple[Node, ...]
    scores: tuple[Edge, ...]


@dataclass(frozen=True)
class SoftmaxReader:
    """Reads the softmax that ends in a node, if one does.

    Attributes:
        graph: The graph.
        vocabulary: What its nodes compute, by their names.
    """

    graph: RecordedGraph
    vocabulary: Vocabulary

    def read(self, node: Node) -> Softmax | None:
        """Return the softmax that ends in a node."""
        operation = self.vocabulary.of(node)
        if self._computes(node, Function.SOFTMAX):
            return Softmax((node,), self._scores(node))
        if self._computes(node, Function.EXP):
            return self._exponential(node)
        if isinstance(operation, Quotient):
            return self._normalized(node, operation.numerator, operation.denominator, ())
        if isinstance(operation, ElementwiseProduct):
            first, second = operation.factors
            for part, scale in ((first, second), (second, first)):
                inverse = self._behind(node.next_functions[scale], Function.RECIPROCAL)
                if inverse is not None:
                    return self._normalized(node, part, scale, (inverse,))
        return None

    def _normalized(
        self, node: Node, part: int, total: int, between: tuple[Node, ...]
    ) -> Softmax | None:
        """Read e / sum(e)."""
        edges = node.next_functions
        exponential = self._behind(edges[part], Function.EXP)
        if exponential is None or not self._sums(edges[total], exponential):
            return None
        return Softmax((node, *between, exponential), self._scores(exponential))

    def _exponential(self, node: Node) -> Softmax | None:
        """Read exp(log_softmax(s)) or exp(s - logsumexp(s))."""
        (inner, _), *_ = node.next_functions
        if self._computes(inner, Function.LOG_SOFTMAX):
            return Softmax((node, inner), self._scores(inner))
        if self._computes(inner, Function.DIFFERENCE):
            total = self._behind(inner.next_functions[1], Function.LOGSUMEXP)
            if total is not None:
                return Softmax((node, total), (inner.next_functions[0], *self._scores(total)))
        return None

    def _behind(self, edge: Edge, function: Function) -> Node | None:
        """Follow the only path through linear operations to a node that computes a function."""
        for _ in range(_STEPS):
            node = edge[0]
            if node is None or not self.graph.is_explained(edge):
                return None
            if self._computes(node, function):
                return node
            edges = self._scores(node)
            if len(edges) != 1 or not self._is_linear(node):
                return None
            edge = edges[0]
        return None

    def _sums(self, edge: Edge, exponential: Node) -> bool:
        """Whether a value is made of the sum of an exponential, and of nothing else explained."""
        found, stack = False, [edge]
        for _ in range(_STEPS):
            if not stack:
                break
            node, _ = stack.pop()
            if node is exponential:
                continue
            inverse = self._computes(node, Function.RECIPROCAL)
            if not (self._is_linear(node) or inverse or self._computes(node, Function.CLAMP)):
                return False
            found |= self._computes(node, Function.REDUCTION)
            stack += self._scores(node)
        return found and not stack

    def _scores(self, node: Node) -> tuple[Edge, ...]:
        return tuple(edge for edge in node.next_functions if self.graph.is_explained(edge))

    def _computes(self, node: Node, function: Function) -> bool:
        operation = self.vocabulary.of(node)
        return operation is not None and operation.function is function

    def _is_linear(self, node: Node) -> bool:
        operation = self.vocabulary.of(node)
        if operation is None:
            return False
        scaled = operation.role is Role.PRODUCT and not self._is_joint(node, operation)
        return operation.role is Role.LINEAR or scaled

    def _is_joint(self, node: Node, operation: Operation) -> bool:
        """Whether all factors depend on the explained tensors."""
        edges = [node.next_functions[i] for i in operation.factor_edges]
        return all(map(self.graph.is_explained, edges))
