"""Finds where constants add to the output.

FullGrad (Srinivas & Fleuret 2019; Mehri et al. 2025, def. 1) attributes the output to the input and
to every bias. Any value that does not depend on the explained tensor and enters additively is such
a bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from libragrad_lightning.backward.biases.observer import is_noted
from libragrad_lightning.backward.biases.routing import Routes
from libragrad_lightning.backward.graph import (
    AnnotatedGraph,
    AnnotatedNode,
    Flow,
    Node,
    Operation,
    Role,
)


class BiasKind(Enum):
    """Where a constant of the explanation comes from."""

    RECORDED = "recorded"
    """A parameter or another leaf of the graph, or the running mean of a BatchNorm."""
    OBSERVED = "observed"
    """A buffer or a number that only a `ConstantObserver` knows of."""
    HELD = "held"
    """The value of an operation on the explained tensors that the rules hold constant."""


@dataclass(frozen=True)
class BiasSite:
    """A place in the graph where constants add to a value that depends on the explained tensors.

    Attributes:
        operation: The name of the graph node.
        depends_on: The numbers of the explained tensors that the value depends on: the bias counts
            in the FullGrad decomposition at each of them.
        sequence: The position of the operation in the order of the forward pass.
        number: The number of the operation in the graph, the same under all rule
            sets, and for all forward passes of a model that record the same operations.
        kind: Where the constant comes from.
        is_routed: Whether rows were picked from another value, in whose shape contributions are.
    """

    operation: str
    depends_on: frozenset[int]
    sequence: int
    number: int
    kind: BiasKind = BiasKind.RECORDED
    is_routed: bool = False


BiasSink: TypeAlias = Callable[[BiasSite, Tensor], None]
"""Receives the elementwise contributions dF/dy * b at a site, in the shape of y.

Where rows of y were picked from another value by what they hold, in the shape of that value.
"""


def watch_bias_sites(graph: AnnotatedGraph, sink: BiasSink) -> Iterator[RemovableHandle]:
    """Register hooks that report dF/dy at every site of biases, whatever the biases are.

    Args:
        graph: The graph.
        sink: Receives the gradients; those of values that the rules hold constant among them.

    Yields:
        The handle of every hook as soon as it is registered.
    """
    routes = Routes(graph)

    def report(site: BiasSite, node: Node) -> RemovableHandle:
        def before(gradients: tuple[Tensor | None, ...]) -> None:
            if gradients[0] is not None:
                sink(site, routes.home(node, gradients[0]))

        return node.register_prehook(before)

    for site in _sites(graph, routes):
        yield report(site, graph.nodes[site.number].node)


def bias_sites(graph: AnnotatedGraph) -> list[BiasSite]:
    """Return the sites of biases that receive a gradient."""
    return _sites(graph, Routes(graph))


def _sites(graph: AnnotatedGraph, routes: Routes) -> list[BiasSite]:
    return [
        replace(site_of(annotated, number), is_routed=routes.leads_from(annotated.node))
        for number, annotated in enumerate(graph.nodes)
        if graph.receives(annotated) and _may_add(annotated)
    ]


def _may_add(annotated: AnnotatedNode) -> bool:
    """Whether an operation may add a constant."""
    operation = annotated.operation
    if operation is None or is_noted(annotated.node, operation):
        return operation is not None
    held = operation.value is not None and is_held(annotated)
    recorded = zip(annotated.flows, annotated.node.next_functions, strict=True)
    constants = any(flow is Flow.CONSTANT and edge[0] is not None for flow, edge in recorded)
    inner = operation.additive is not None and (constants or operation.role is not Role.LINEAR)
    return held or inner or bool(separate_constants(annotated, operation))


def site_of(annotated: AnnotatedNode, number: int) -> BiasSite:
    """Return the site of a node, by its number in the graph."""
    return BiasSite(
        annotated.node.name(), annotated.depends_on, annotated.node._sequence_nr(), number
    )


def is_held(annotated: AnnotatedNode) -> bool:
    """Return whether the rules hold the value of a node constant."""
    edges = zip(annotated.correction.weights, annotated.flows, strict=True)
    return not any(weight and flow is not Flow.CONSTANT for weight, flow in edges)


def separate_constants(annotated: AnnotatedNode, operation: Operation) -> list[int]:
    """Return the edges of constants that add to what the other operands make of themselves.

    These are operands of an operation that adds or arranges, and factors that are all constant
    while the addend of their product, or of a normalization, is not.
    """
    flows, recorded = annotated.flows, annotated.node.next_functions
    constants = [
        i for i, f in enumerate(flows) if f is Flow.CONSTANT and recorded[i][0] is not None
    ]
    if operation.role is Role.LINEAR:
        return [] if operation.additive is not None or operation.is_identity else constants
    joined = operation.role in (Role.PRODUCT, Role.NORMALIZATION)
    if not joined or any(flows[i] is not Flow.CONSTANT for i in operation.factor_edges):
        return []
    return [i for i in operation.factor_edges if i in constants]
