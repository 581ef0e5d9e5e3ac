"""Reads a recorded autograd graph: order, dependence on the explained tensors, flow, corrections.

Nothing is changed here. A `GraphReading` says, for every node between the outputs and the explained
tensors, what the node is and what a rule set will do to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from libragrad_lightning.backward.errors import UnknownOperationError, UnreachableInputError
from libragrad_lightning.backward.operations import Node, Operation, Role
from libragrad_lightning.backward.rule_sets import Correction, Flow, RuleSet

Edge = tuple[Node, int]
"""A node and the number of one of its outputs; the node is None where no gradient is recorded."""

_UNKNOWN = Operation(Role.LINEAR)


@dataclass(frozen=True)
class NodeReading:
    """What was read of one node.

    Attributes:
        node: The node of the autograd graph.
        operation: Its entry in the vocabulary, None if it has none.
        flows: The flow of every operand.
        flow: The flow of its value; outputs that the correction calls dead are dead all the same.
        reach: Bit i is set if the value depends on explained tensor i, pruned paths included.
        correction: What the rule set does to its gradients.
    """

    node: Node
    operation: Operation | None
    flows: tuple[Flow, ...]
    flow: Flow
    reach: int
    correction: Correction


@dataclass(frozen=True)
class GraphReading:
    """All nodes on which the outputs and at least one explained tensor meet, inputs first."""

    nodes: tuple[NodeReading, ...]

    def unknown(self) -> Counter[str]:
        """Return how often each operation without an entry meets the live path."""
        return Counter(r.node.name() for r in self.nodes if r.operation is None and _on_path(r))


def _on_path(reading: NodeReading) -> bool:
    return Flow.LIVE in reading.flows


def is_leaf_node(node: Node) -> bool:
    """Return whether a node stands for a leaf tensor."""
    return node is not None and hasattr(node, "variable")


def read_graph(outputs: Sequence[Tensor], inputs: Sequence[Tensor], rules: RuleSet) -> GraphReading:
    """Read the graph from `outputs` back to `inputs` under a rule set.

    Args:
        outputs: Tensors with a recorded graph.
        inputs: The explained tensors, leaves or not.
        rules: The rule set that decides corrections.

    Raises:
        UnreachableInputError: If the outputs do not depend on one of the inputs.
    """
    _check_recorded(outputs, inputs)
    sources = _source_bits(inputs)
    roots = [_edge_of(tensor)[0] for tensor in outputs]
    reach: dict[Node, int] = {None: 0}
    # A node's value has its flow, unless one of its outputs has another.
    flow: dict[Node | Edge, Flow] = {None: Flow.CONSTANT}
    readings: list[NodeReading] = []
    for node in _inputs_first(roots):
        edges = node.next_functions
        reach[node] = 0
        for child, number in edges:
            reach[node] |= reach[child] | sources.get((child, number), 0)
        flow[node] = Flow.CONSTANT
        if reach[node]:
            flows = tuple(Flow.LIVE if e in sources else flow.get(e, flow[e[0]]) for e in edges)
            reading = _read_node(node, flows, reach[node], rules)
            flow[node] = reading.flow
            flow.update(((node, i), Flow.DEAD) for i in reading.correction.dead_outputs)
            readings.append(reading)
    _check_reached(outputs, inputs, reach, sources)
    return GraphReading(tuple(readings))


def check_known(reading: GraphReading) -> None:
    """Raise if the explained tensor flows through an operation without an entry.

    Raises:
        UnknownOperationError: Names every such operation and how often it occurs.
    """
    unknown = reading.unknown()
    if unknown:
        raise UnknownOperationError(unknown_sentence(unknown))


def unknown_sentence(unknown: Counter[str]) -> str:
    """Return one sentence that names unknown operations and says what to do about them."""
    listed = ", ".join(f"{name} ({count}x)" for name, count in sorted(unknown.items()))
    return (
        f"The explained tensor flows through operations whose role is unknown: {listed}; give each "
        "a role with `rules.vocabulary.extended({name: Operation(Role...)})`, or pass "
        "`unknown='warn'` or `'ignore'` to keep their ordinary gradients."
    )


def _read_node(node: Node, flows: tuple[Flow, ...], reach: int, rules: RuleSet) -> NodeReading:
    name = node.name()
    operation = rules.vocabulary.get(name)
    if operation is not None and Flow.LIVE in flows:
        if operation.check is not None:
            operation.check(node)
        if operation.applies is not None and not operation.applies(node):
            operation = None
    correction = rules.correct(operation or _UNKNOWN, node, flows)
    passes = any(
        weight and flow is Flow.LIVE for weight, flow in zip(correction.weights, flows, strict=True)
    )
    return NodeReading(
        node, operation, flows, Flow.LIVE if passes else Flow.DEAD, reach, correction
    )


def _edge_of(tensor: Tensor) -> Edge:
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _source_bits(inputs: Sequence[Tensor]) -> dict[Edge, int]:
    bits: dict[Edge, int] = {}
    for i, tensor in enumerate(inputs):
        edge = _edge_of(tensor)
        bits[edge] = bits.get(edge, 0) | 1 << i
    return bits


def _inputs_first(roots: Iterable[Node]) -> list[Node]:
    """Return every node behind the roots, each after all nodes that it hands gradients to."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in roots]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child, _ in node.next_functions if child is not None)
    return order


def _check_recorded(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
    recorded = any(tensor.requires_grad for tensor in outputs)
    _raise_unreached([i for i, x in enumerate(inputs) if not (recorded and x.requires_grad)])


def _check_reached(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    reach: dict[Node, int],
    sources: dict[Edge, int],
) -> None:
    found = 0
    for tensor in outputs:
        edge = _edge_of(tensor)
        found |= reach[edge[0]] | sources.get(edge, 0)
    _raise_unreached([i for i in range(len(inputs)) if not found >> i & 1])


def _raise_unreached(missing: list[int]) -> None:
    if missing:
        raise UnreachableInputError(
            f"The outputs do not depend on `inputs` {missing}; explain a tensor that the forward "
            "pass used, with `requires_grad` set before it."
        )
