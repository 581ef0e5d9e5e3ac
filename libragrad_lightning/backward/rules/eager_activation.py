"""Recognizes eager activations, x * g(x) in several operations, by their place in the graph.

GELU as ``0.5 * x * (1 + tanh(...))`` or hard-swish as ``x * relu6(x + 3) / 6`` are the functions
that PyTorch has kernels for, and must get their gradients. What tells them from a product of two
branches, such as a gated linear unit, is that one factor g is an elementwise function of a value x
that the other factor is proportional to. Then g is the gate of x and is held constant, whole
(Thm 5): constants inside of it, such as the 1 above, are no biases of the explanation. The same
holds for a quotient such as ``x / (1 + exp(-x))``.

A factor without a constant or a gate in it, as in ``x * relu(x)``, is homogeneous: dividing the
gradient among the factors gives the same (Euler's theorem), and the product stays a product. A
quotient whose denominator has no gate in it stays a quotient: its denominator is held anyway
(Cor 2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from libragrad_lightning.backward.graph import (
    Edge,
    Elementwise,
    Node,
    Operation,
    RecordedGraph,
    Role,
    Vocabulary,
)
from libragrad_lightning.backward.rules.activation import EagerActivation
from libragrad_lightning.backward.rules.power import Power
from libragrad_lightning.backward.rules.product import ElementwiseProduct
from libragrad_lightning.backward.rules.quotient import Quotient

_LIMIT = 64
"""How many operations a gate may consist of, and how many may lie between it and x."""

_DEPTH = 8
"""How many products may lie between a gate and the product with x."""


def eager_activations(graph: RecordedGraph, vocabulary: Vocabulary) -> Mapping[Node, Operation]:
    """Find the nodes that compute an activation together.

    Args:
        graph: The graph.
        vocabulary: What its nodes compute elsewhere, by their names.

    Returns:
        The operations, of the role `ACTIVATION`, that take the place of those in the vocabulary:
        the products, and what the gates alone use.
    """
    search = _Search(graph, vocabulary, _consumers(graph))
    for node in graph.nodes:
        search.visit(node)
    return search.found


def _consumers(graph: RecordedGraph) -> dict[Node, set[tuple[Node, int]]]:
    """Return at which edges of which nodes the value of every node is used."""
    consumers: dict[Node, set[tuple[Node, int]]] = defaultdict(set)
    for node in graph.nodes:
        for i, (child, _) in enumerate(node.next_functions):
            consumers[child].add((node, i))
    for root in graph.roots:
        consumers[root].add((None, 0))
    return consumers


@dataclass
class _Search:
    graph: RecordedGraph
    vocabulary: Vocabulary
    consumers: dict[Node, set[tuple[Node, int]]]
    found: dict[Node, Operation] = field(default_factory=dict)

    def visit(self, node: Node) -> None:
        """Note the parts of an activation if its last product or quotient is this node."""
        for gate, value in self._ways(node):
            values = list(self._values_behind(node.next_functions[value]))
            if self._hold(node, gate, values):
                return

    def _hold(self, node: Node, edge: int, values: Sequence[Edge], depth: int = 0) -> bool:
        """Hold a factor that is a gate of one of these values; or such factors inside of it.

        Returns:
            Whether the factor is held as a whole.
        """
        factor = node.next_functions[edge]
        for value in values:
            inner = self._function_of(value, factor)
            if inner is not None and self._is_gate(inner, node):
                self._note(node, edge, inner)
                return True
        product = factor[0]
        if depth == _DEPTH or product in self.found or self.consumers[product] != {(node, edge)}:
            return False
        operation = self._joint(product)
        if not isinstance(operation, ElementwiseProduct):
            return False
        # Both, whether one is held or not.
        held = [self._hold(product, i, values, depth + 1) for i in operation.factors]
        if all(held):
            self._note(node, edge, [product])
            return True
        return False

    def _note(self, node: Node, edge: int, inner: Collection[Node]) -> None:
        operation = self.found.get(node) or self.vocabulary[node.name()]
        self.found[node] = _part(operation, [i for i in operation.factor_edges if i != edge])
        for part in self._used_alone(inner, (node, edge)):
            operation = self.vocabulary[part.name()]
            scaled = operation.role is Role.PRODUCT and self._joint(part) is None
            if operation.role not in (Role.LINEAR, Role.ACTIVATION) and not scaled:
                self.found[part] = _part(operation, ())

    def _used_alone(self, inner: Collection[Node], place: tuple[Node, int]) -> Iterator[Node]:
        """Give those operations of a gate whose values nothing else uses."""
        allowed = {place}
        rest = list(inner)
        while rest:
            ready = [node for node in rest if self.consumers[node] <= allowed]
            if not ready:
                return
            for node in ready:
                allowed.update((node, i) for i in range(len(node.next_functions)))
                rest.remove(node)
                yield node

    def _values_behind(self, edge: Edge) -> Iterator[Edge]:
        """Give the values that a value is proportional to, or to powers of, nearest first."""
        queue = [edge]
        for _ in range(_LIMIT):
            if not queue:
                return
            edge = queue.pop(0)
            yield edge
            if edge not in self.graph.sources:
                queue += [e for e in self._proportional(edge) if self.graph.is_explained(e)]

    def _proportional(self, edge: Edge) -> Sequence[Edge]:
        """Return the operands that a value is homogeneous in, of a positive degree."""
        node, number = edge
        operands: Sequence[Edge] = () if node is None else node.next_functions
        operation = self.vocabulary.of(node)
        if operation is None:
            return ()
        if operation.is_identity:
            return operands[number : number + 1]
        if operation.elementwise is not Elementwise.PROPORTIONAL:
            return ()
        if isinstance(operation, Power):
            degree = operation.degree(node)
            return operands if not isinstance(degree, Tensor) and degree > 0 else ()
        if isinstance(operation, Quotient):
            return operands[operation.numerator : operation.numerator + 1]
        return operands

    def _function_of(self, value: Edge, result: Edge) -> list[Node] | None:
        """Return the operations between a value and an elementwise function of it alone."""
        inner: dict[Node, None] = {}
        stack = [result]
        while stack:
            edge = stack.pop()
            if edge == value or not self.graph.is_explained(edge):
                continue
            node, number = edge
            if edge in self.graph.sources or not self._is_elementwise(node) or len(inner) >= _LIMIT:
                return None
            if node not in inner:
                inner[node] = None
                operands = node.next_functions
                stack += operands[number : number + 1] if self._is_identity(node) else operands
        return list(inner)

    def _is_elementwise(self, node: Node) -> bool:
        operation = self.vocabulary.of(node)
        if operation is None:
            return False
        return operation.elementwise is not None or operation.is_identity

    def _is_identity(self, node: Node) -> bool:
        operation = self.vocabulary.of(node)
        return operation is not None and operation.is_identity

    def _is_gate(self, inner: Collection[Node], product: Node) -> bool:
        """Whether operations compute what is not homogeneous, in a product or quotient."""
        operations = {node: self.vocabulary[node.name()] for node in inner}
        if any(o.role in (Role.GATE, Role.ACTIVATION) for o in operations.values()):
            return True
        sums = [n.next_functions for n, o in operations.items() if o.elementwise is Elementwise.SUM]
        constant = any(
            len(edges) == 1 or not all(map(self.graph.is_explained, edges)) for edges in sums
        )
        return constant and not isinstance(self.vocabulary.of(product), Quotient)

    def _ways(self, node: Node) -> Sequence[tuple[int, int]]:
        """Return the edges at which a gate, and the value that it gates, may enter a node."""
        operation = self._joint(node)
        if isinstance(operation, Quotient):
            return [(operation.denominator, operation.numerator)]
        if operation is None:
            return []
        first, second = operation.factors
        return [(second, first), (first, second)]

    def _joint(self, node: Node) -> ElementwiseProduct | Quotient | None:
        """Return the operation of a node if it is a product or quotient of explained operands."""
        operation = self.vocabulary.of(node)
        if not isinstance(operation, ElementwiseProduct | Quotient):
            return None
        return operation if all(map(self.graph.is_explained, node.next_functions)) else None


def _part(operation: Operation, live: Sequence[int]) -> EagerActivation:
    return EagerActivation(tuple(live), additive=operation.additive, value=operation.value)
