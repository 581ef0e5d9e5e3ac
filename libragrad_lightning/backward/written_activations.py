"""Recognises activations x * g(x) that are written out, by their place in the graph.

GELU as ``0.5 * x * (1 + tanh(...))`` or hard-swish as ``x * relu6(x + 3) / 6`` are the functions
that PyTorch has kernels for, and must get their gradients. What tells them from a product of two
branches, such as a gated linear unit, is that one factor g is an elementwise function of a value x
that the other factor is proportional to. Then g is the gate of x and is held constant, whole
(Thm 5): constants inside of it, such as the 1 above, are no biases of the explanation. The same
holds for a quotient such as ``x / (1 + exp(-x))``.

A factor without a constant or a gate in it, as in ``x * relu(x)``, is homogeneous: sharing among
the factors gives the same gradient (Euler's theorem), and the product stays a product. A quotient
whose denominator has no gate in it stays a quotient: its denominator is held anyway (Cor 2).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from libragrad_lightning.backward.operations import Edge, Node, Operation, Role, Vocabulary

_SUMS = frozenset("Add Lerp MaskedFill Maximum Minimum Rsub Sub Where".split())
"""Elementwise operations that may add, or choose, a constant."""

_PROPORTIONAL = frozenset(
    "Abs Alias Clone Div LeakyRelu Mul Neg Pow PreluKernel Relu Sqrt ToCopy".split()
)
"""Elementwise operations that are homogeneous in each operand."""

_CURVED = frozenset(
    """
    Asinh Atan Celu Clamp ClampMax ClampMin Cos Elu Erf Erfc Exp Exp2 Expm1 Gelu Hardshrink
    Hardsigmoid Hardswish Hardtanh Log Log1P LogSigmoid Logaddexp Mish NanToNum Reciprocal Rsqrt
    Sigmoid Silu Sin Sinh Softplus Softshrink Tanh Threshold
    """.split()
)

_ELEMENTWISE = _SUMS | _PROPORTIONAL | _CURVED

_LIMIT = 64
"""How many operations a gate may consist of, and how many may lie between it and x."""

_DEPTH = 8
"""How many products may lie between a gate and the product with x."""


def written_activations(
    nodes: Sequence[Node],
    roots: Collection[Node],
    sources: Collection[Edge],
    reached: Callable[[Edge], bool],
    vocabulary: Vocabulary,
) -> dict[Node, Operation]:
    """Find the nodes that compute an activation together.

    Args:
        nodes: The nodes of a graph, inputs first.
        roots: The nodes of its outputs.
        sources: The edges of the explained tensors.
        reached: Whether the value at an edge depends on an explained tensor.
        vocabulary: The roles that the nodes have elsewhere.

    Returns:
        The operations, of the role `ACTIVATION`, that take the place of those in the vocabulary:
        the products, and what the gates alone use.
    """
    consumers: dict[Node, set[tuple[Node, int]]] = defaultdict(set)
    for node in nodes:
        for i, (child, _) in enumerate(node.next_functions):
            consumers[child].add((node, i))
    for root in roots:
        consumers[root].add((None, 0))
    search = _Search(sources, reached, vocabulary, consumers)
    for node in nodes:
        search.visit(node)
    return search.found


@dataclass
class _Search:
    sources: Collection[Edge]
    reached: Callable[[Edge], bool]
    vocabulary: Vocabulary
    consumers: dict[Node, set[tuple[Node, int]]]
    found: dict[Node, Operation] = field(default_factory=dict)

    def visit(self, node: Node) -> None:
        """Note the parts of an activation if its last product or quotient is this node."""
        if not self._joins(node):
            return
        ways = [(1, 0)] if node.name().startswith("Div") else [(1, 0), (0, 1)]
        for gate, value in ways:
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
        if not (product.name().startswith("MulBackward0") and self._joins(product)):
            return False
        held = [self._hold(product, i, values, depth + 1) for i in (0, 1)]  # both, one held or not
        if all(held):
            self._note(node, edge, [product])
            return True
        return False

    def _note(self, node: Node, edge: int, inner: Collection[Node]) -> None:
        operation = self.found.get(node) or self.vocabulary[node.name()]
        factors = tuple(i for i in operation.factors if i != edge)
        self.found[node] = _part(operation, factors)
        for part in self._used_alone(inner, (node, edge)):
            operation = self.vocabulary[part.name()]
            if operation.role not in (Role.LINEAR, Role.ACTIVATION) and not (
                operation.role is Role.PRODUCT and not self._joins(part)
            ):
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
            if edge not in self.sources:
                queue += [e for e in self._proportional(edge) if self.reached(e)]

    def _proportional(self, edge: Edge) -> Sequence[Edge]:
        """Return the operands that a value is homogeneous in, of a positive degree."""
        node, number = edge
        operands: Sequence[Edge] = node.next_functions
        stem = _stem(node)
        if self._is_identity(node):
            return operands[number : number + 1]
        if stem == "Pow":
            positive = node.name() == "PowBackward0" and float(node._saved_exponent) > 0
            return operands if positive else ()
        if stem == "Div":
            return operands[:1]
        return operands if stem in _PROPORTIONAL else ()

    def _function_of(self, value: Edge, result: Edge) -> list[Node] | None:
        """Return the operations between a value and an elementwise function of it alone."""
        inner: dict[Node, None] = {}
        stack = [result]
        while stack:
            edge = stack.pop()
            if edge == value or not self.reached(edge):
                continue
            node, number = edge
            if edge in self.sources or not self._is_elementwise(node) or len(inner) >= _LIMIT:
                return None
            if node not in inner:
                inner[node] = None
                operands = node.next_functions
                stack += operands[number : number + 1] if self._is_identity(node) else operands
        return list(inner)

    def _is_elementwise(self, node: Node) -> bool:
        known = self.vocabulary.get(node.name()) is not None
        return known and (_stem(node) in _ELEMENTWISE or self._is_identity(node))

    def _is_identity(self, node: Node) -> bool:
        operation = self.vocabulary.get(node.name())
        return operation is not None and operation.identity

    def _is_gate(self, inner: Collection[Node], product: Node) -> bool:
        """Whether operations compute what is not homogeneous, in a product or quotient."""
        if any(self.vocabulary[n.name()].role in (Role.GATE, Role.ACTIVATION) for n in inner):
            return True
        sums = [n.next_functions for n in inner if _stem(n) in _SUMS]
        constant = any(len(edges) == 1 or not all(map(self.reached, edges)) for edges in sums)
        return constant and not product.name().startswith("Div")

    def _joins(self, node: Node) -> bool:
        """Whether a node is an elementwise product or quotient of two explained operands."""
        if not node.name().startswith(("MulBackward0", "DivBackward0")):
            return False
        operation = self.vocabulary.get(node.name())
        known = operation is not None and operation.role in (Role.PRODUCT, Role.QUOTIENT)
        return known and all(map(self.reached, node.next_functions))


def _part(operation: Operation, factors: tuple[int, ...]) -> Operation:
    return replace(
        operation,
        role=Role.ACTIVATION,
        factors=factors,
        gate=None,
        input_gradient=None,
        written=True,
    )


def _stem(node: Node) -> str:
    return "" if node is None else re.sub(r"Backward\d*$", "", node.name())
