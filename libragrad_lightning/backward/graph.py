"""Reads a recorded autograd graph: order, dependence on the explained tensors, flow, corrections.

Nothing is changed here. A `GraphReading` says, for every node between the outputs and the explained
tensors, what the node is and what a rule set will do to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import or_

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from libragrad_lightning.backward.errors import UnreachableInputError
from libragrad_lightning.backward.operations import Edge, Node, Operation, Role
from libragrad_lightning.backward.readings import GraphReading, NodeReading
from libragrad_lightning.backward.rule_sets import RuleSet
from libragrad_lightning.backward.treatments import Flow
from libragrad_lightning.backward.written_activations import written_activations
from libragrad_lightning.backward.written_attention import written_attention

_UNKNOWN = Operation(Role.LINEAR)


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
    roots = [edge_of(tensor)[0] for tensor in outputs]
    order = nodes_inputs_first(roots)
    reach = _reach(order, sources, rules)
    _check_reached(outputs, inputs, reach, sources)
    readings = _read_nodes(order, roots, reach, sources, rules)
    return GraphReading(readings, _receiving(readings, roots), frozenset(sources))


def _reach(
    order: Sequence[Node], sources: Mapping[Edge, int], rules: RuleSet
) -> dict[Node | Edge, int]:
    """Return, for every node, on which explained tensors it depends, pruned paths included.

    An output that depends on others than its node has an entry of its own.
    """
    reach: dict[Node | Edge, int] = {None: 0}
    for node in order:
        bits = [_bits(edge, reach) | sources.get(edge, 0) for edge in node.next_functions]
        reach[node] = reduce(or_, bits, 0)
        if len(bits) > 1 and _is_identity(rules.vocabulary.get(node.name())):
            reach.update(((node, i), found) for i, found in enumerate(bits))
    return reach


def _bits(edge: Edge, reach: Mapping[Node | Edge, int]) -> int:
    found = reach.get(edge)
    return reach[edge[0]] if found is None else found


def _is_identity(operation: Operation | None) -> bool:
    return operation is not None and operation.identity


def _read_nodes(
    order: Sequence[Node],
    roots: Sequence[Node],
    reach: Mapping[Node | Edge, int],
    sources: Mapping[Edge, int],
    rules: RuleSet,
) -> tuple[NodeReading, ...]:
    nodes = [node for node in order if reach[node]]

    def reached(edge: Edge) -> bool:
        return edge in sources or bool(_bits(edge, reach))

    written = {
        **written_activations(nodes, roots, sources, reached, rules.vocabulary),
        **written_attention(nodes, reached, rules.vocabulary),
    }
    # A node's value has its flow, unless its outputs have others.
    flow: dict[Node | Edge, Flow] = {}
    readings: list[NodeReading] = []
    for node in nodes:
        flows = tuple(
            Flow.LIVE if e in sources else flow.get(e) or flow.get(e[0], Flow.CONSTANT)
            for e in node.next_functions
        )
        operation = written.get(node) or rules.vocabulary.get(node.name())
        reading = _read_node(node, operation, flows, reach[node], rules)
        flow[node] = reading.flow
        flow.update(((node, i), Flow.DEAD) for i in reading.correction.dead_outputs)
        if _is_identity(operation):
            flow.update(((node, i), of_operand) for i, of_operand in enumerate(flows))
        readings.append(reading)
    return tuple(readings)


def _receiving(readings: Sequence[NodeReading], roots: Iterable[Node]) -> frozenset[Node]:
    receiving = set(roots)
    for r in reversed(readings):
        if r.node in receiving:
            edges = zip(r.node.next_functions, r.correction.weights, r.flows, strict=True)
            receiving.update(e[0] for e, w, flow in edges if w and flow is not Flow.CONSTANT)
    return frozenset(receiving)


def _read_node(
    node: Node,
    operation: Operation | None,
    flows: tuple[Flow, ...],
    reach: int,
    rules: RuleSet,
) -> NodeReading:
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


def edge_of(tensor: Tensor) -> Edge:
    """Return the node that made a tensor, and which of its outputs the tensor is."""
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _source_bits(inputs: Sequence[Tensor]) -> dict[Edge, int]:
    bits: dict[Edge, int] = {}
    for i, tensor in enumerate(inputs):
        edge = edge_of(tensor)
        bits[edge] = bits.get(edge, 0) | 1 << i
    return bits


def nodes_inputs_first(roots: Iterable[Node]) -> list[Node]:
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
    reach: Mapping[Node | Edge, int],
    sources: Mapping[Edge, int],
) -> None:
    found = 0
    for tensor in outputs:
        edge = edge_of(tensor)
        found |= _bits(edge, reach) | sources.get(edge, 0)
    _raise_unreached([i for i in range(len(inputs)) if not found >> i & 1])


def _raise_unreached(missing: list[int]) -> None:
    if missing:
        raise UnreachableInputError(
            f"The outputs do not depend on `inputs` {missing}; explain a tensor that the forward "
            "pass used, with `requires_grad` set before it."
        )
