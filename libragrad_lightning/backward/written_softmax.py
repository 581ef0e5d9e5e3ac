"""Recognises a softmax that is written out, by its place in the graph.

``e / e.sum(-1, keepdim=True)`` with ``e = (s - s.amax(-1, keepdim=True)).exp()`` is a softmax of
the scores s, and so are ``s.log_softmax(-1).exp()`` and ``(s - s.logsumexp(-1, True)).exp()``. What
is subtracted from the scores, and what is added to the sum, changes nothing about that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from libragrad_lightning.backward.operations import Edge, Node, Role, Vocabulary

_SOFTMAX = ("SoftmaxBackward", "SafeSoftmaxBackward")
_STEPS = 32
"""How many operations may lie between the parts."""


@dataclass(frozen=True)
class Softmax:
    """The nodes that compute normalised weights together, from the weights back.

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
        reached: Whether the value at an edge depends on an explained tensor.
        vocabulary: The roles of the nodes.
    """

    reached: Callable[[Edge], bool]
    vocabulary: Vocabulary

    def read(self, node: Node) -> Softmax | None:
        """Return the softmax that ends in a node."""
        if node.name().startswith(_SOFTMAX):
            return Softmax((node,), self._scores(node))
        if node.name() == "ExpBackward0":
            return self._exponential(node)
        if node.name() == "DivBackward0":
            return self._normalised(node, 0, 1, ())
        if node.name() == "MulBackward0":
            for part, scale in ((0, 1), (1, 0)):
                inverse = self._behind(node.next_functions[scale], "ReciprocalBackward")
                if inverse is not None:
                    return self._normalised(node, part, scale, (inverse,))
        return None

    def _normalised(
        self, node: Node, part: int, total: int, between: tuple[Node, ...]
    ) -> Softmax | None:
        """Read e / sum(e)."""
        edges = node.next_functions
        exponential = self._behind(edges[part], "ExpBackward")
        if exponential is None or not self._sums(edges[total], exponential):
            return None
        return Softmax((node, *between, exponential), self._scores(exponential))

    def _exponential(self, node: Node) -> Softmax | None:
        """Read exp(log_softmax(s)) or exp(s - logsumexp(s))."""
        (inner, _), *_ = node.next_functions
        if inner is None:
            return None
        if inner.name().startswith("LogSoftmaxBackward"):
            return Softmax((node, inner), self._scores(inner))
        if inner.name() == "SubBackward0":
            total = self._behind(inner.next_functions[1], "LogsumexpBackward")
            if total is not None:
                return Softmax((node, total), (inner.next_functions[0], *self._scores(total)))
        return None

    def _behind(self, edge: Edge, name: str) -> Node | None:
        """Follow the only path through linear operations to a node of that name."""
        for _ in range(_STEPS):
            node = edge[0]
            if node is None or not self.reached(edge):
                return None
            if node.name().startswith(name):
                return node
            edges = [e for e in node.next_functions if self.reached(e)]
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
            if not (self._is_linear(node) or node.name().startswith(("Reciprocal", "Clamp"))):
                return False
            found |= node.name().startswith("SumBackward")
            stack += [e for e in node.next_functions if self.reached(e)]
        return found and not stack

    def _scores(self, node: Node) -> tuple[Edge, ...]:
        return tuple(edge for edge in node.next_functions if self.reached(edge))

    def _is_linear(self, node: Node) -> bool:
        operation = self.vocabulary.get(node.name())
        if operation is None:
            return False
        edges: Sequence[Edge] = [node.next_functions[i] for i in operation.factors]
        scaled = operation.role is Role.PRODUCT and not all(map(self.reached, edges))
        return operation.role is Role.LINEAR or scaled
