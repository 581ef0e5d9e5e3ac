"""Says of every node between outputs and explained tensors what it is, and what rules do to it.

Nothing is changed here. The nodes of an `AnnotatedGraph` carry their operations, the flows of their
operands, and the corrections that `grad` registers as hooks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from libragrad_lightning.backward.errors import UnknownOperationError
from libragrad_lightning.backward.graph.edges import Edge, Node, shape_of
from libragrad_lightning.backward.graph.flow import Correction, Flow
from libragrad_lightning.backward.graph.operations import Operation, Vocabulary
from libragrad_lightning.backward.graph.recorded import RecordedGraph, is_identity, recorded_graph


class Rules(Protocol):
    """What annotates a graph."""

    @property
    def vocabulary(self) -> Vocabulary:
        """What nodes compute, by their names."""
        ...

    def recognized(self, graph: RecordedGraph) -> Mapping[Node, Operation]:
        """Return what nodes compute that are told by their place in the graph."""
        ...

    def correct(self, operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
        """Return what is done to the gradients that a node hands on."""
        ...


@dataclass(frozen=True)
class AnnotatedNode:
    """A node with what is known of it.

    Attributes:
        node: The node of the autograd graph.
        operation: What it computes, None if that is unknown.
        flows: The flow of every operand.
        flow: The flow of its value; outputs that the correction calls dead are dead all the same.
        depends_on: The numbers of the explained tensors that its value depends on; paths at which
            rules stop the gradient count too.
        correction: What the rule set does to its gradients.
    """

    node: Node
    operation: Operation | None
    flows: tuple[Flow, ...]
    flow: Flow
    depends_on: frozenset[int]
    correction: Correction


@dataclass(frozen=True)
class AnnotatedGraph:
    """All nodes on which the outputs and at least one explained tensor meet, inputs first.

    Attributes:
        nodes: The nodes.
        receiving: Those that receive a gradient in the corrected graph: a path at which no rule
            stops the gradient leads to them from the outputs.
        sources: Where the explained tensors are.
        vocabulary: What nodes compute, by their names.
    """

    nodes: tuple[AnnotatedNode, ...]
    receiving: frozenset[Node]
    sources: frozenset[Edge]
    vocabulary: Vocabulary

    def receives(self, annotated: AnnotatedNode) -> bool:
        """Return whether a node receives a gradient in the corrected graph."""
        return annotated.node in self.receiving

    def shape_at(self, number: int) -> torch.Size:
        """Return the shape of the (first) output of a node by its number."""
        return shape_of(self.nodes[number].node)

    def unknown(self) -> Counter[str]:
        """Return how often each unknown operation is met by a gradient.

        Operations whose gradient would be stopped, such as those behind the queries of attention
        under `LIBRA`, need no role.
        """
        return Counter(
            a.node.name() for a in self.nodes if a.operation is None and self.receives(a)
        )

    def check_known(self) -> None:
        """Raise if the explained tensors flow through an unknown operation.

        Raises:
            UnknownOperationError: Names every such operation and how often it occurs.
        """
        unknown = self.unknown()
        if unknown:
            raise UnknownOperationError(unknown_sentence(unknown))


def annotate_graph(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], rules: Rules
) -> AnnotatedGraph:
    """Annotate the graph from `outputs` back to `inputs` under a rule set.

    Args:
        outputs: Tensors with a recorded graph.
        inputs: The explained tensors, leaves or not.
        rules: The rule set that decides corrections.

    Raises:
        UnreachableInputError: If the outputs do not depend on one of the inputs.
    """
    graph = recorded_graph(outputs, inputs, rules.vocabulary)
    nodes = _annotated(graph, rules)
    receiving = _receiving(nodes, graph.roots)
    return AnnotatedGraph(nodes, receiving, frozenset(graph.sources), rules.vocabulary)


def _annotated(graph: RecordedGraph, rules: Rules) -> tuple[AnnotatedNode, ...]:
    recognized = rules.recognized(graph)
    # A node's value has its flow, unless its outputs have others.
    flow: dict[Node | Edge, Flow] = {}
    found: list[AnnotatedNode] = []
    for node in graph.nodes:
        flows = tuple(
            Flow.LIVE if e in graph.sources else flow.get(e) or flow.get(e[0], Flow.CONSTANT)
            for e in node.next_functions
        )
        operation = recognized.get(node) or rules.vocabulary.of(node)
        annotated = _annotate(node, operation, flows, graph.dependence(node), rules)
        flow[node] = annotated.flow
        flow.update(((node, i), Flow.DEAD) for i in annotated.correction.dead_outputs)
        if is_identity(operation):
            flow.update(((node, i), of_operand) for i, of_operand in enumerate(flows))
        found.append(annotated)
    return tuple(found)


def _annotate(
    node: Node,
    operation: Operation | None,
    flows: tuple[Flow, ...],
    depends_on: frozenset[int],
    rules: Rules,
) -> AnnotatedNode:
    if operation is not None and Flow.LIVE in flows:
        operation.check(node)
        if operation.applies is not None and not operation.applies(node):
            operation = None
    correction = (
        Correction.ordinary(flows) if operation is None else rules.correct(operation, node, flows)
    )
    passes = any(
        weight and flow is Flow.LIVE for weight, flow in zip(correction.weights, flows, strict=True)
    )
    own = Flow.LIVE if passes else Flow.DEAD
    return AnnotatedNode(node, operation, flows, own, depends_on, correction)


def _receiving(nodes: Sequence[AnnotatedNode], roots: Sequence[Node]) -> frozenset[Node]:
    receiving = set(roots)
    for a in reversed(nodes):
        if a.node in receiving:
            edges = zip(a.node.next_functions, a.correction.weights, a.flows, strict=True)
            receiving.update(e[0] for e, w, flow in edges if w and flow is not Flow.CONSTANT)
    return frozenset(receiving)


def unknown_sentence(unknown: Counter[str]) -> str:
    """Return one sentence that names unknown operations and says what to do about them."""
    listed = ", ".join(f"{name} ({count}x)" for name, count in sorted(unknown.items()))
    hidden = any(name.endswith("CopySlices") for name in unknown)
    in_place = (
        "compute what CopySlices hides, an operation in place on a view, out of place "
        "(`inplace=False`), "
    )
    return (
        f"The explained tensor flows through operations whose role is unknown: {listed}; "
        f"{in_place if hidden else ''}give each a role with "
        "`rules.vocabulary.extended({name: operation})`, such as `Linear()` or "
        "`Activation(gate)`, or pass `unknown='warn'` or `'ignore'` to keep their ordinary "
        "gradients (`diagnosis.coverage` names their modules)."
    )
