"""Finds the constants that add to the output, and measures what each contributes.

FullGrad (Srinivas & Fleuret 2019; Mehri et al. 2025, def. 1) attributes the output to the input and
to every bias: the contribution of a bias b is dF/dy * b at the output y of the operation that adds
it. Any value that does not depend on the explained tensor and enters additively is such a bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from libragrad_lightning.backward.constant_values import ConstantValues
from libragrad_lightning.backward.constants import is_noted, observed_constant
from libragrad_lightning.backward.operations import Node, Operation, Role, Vocabulary
from libragrad_lightning.backward.readings import GraphReading, NodeReading
from libragrad_lightning.backward.routing import Routes
from libragrad_lightning.backward.treatments import Flow


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
        reach: Bit i is set if the value depends on explained tensor i: the bias then counts in the
            FullGrad decomposition at tensor i.
        sequence: The position of the operation in the order of the forward pass.
        number: The number of the operation in the reading of the graph, the same under all rule
            sets, and for all forward passes of a model that record the same operations.
        kind: Where the constant comes from.
        is_routed: Whether rows were picked from another value, in whose shape contributions are.
    """

    operation: str
    reach: int
    sequence: int
    number: int
    kind: BiasKind = BiasKind.RECORDED
    is_routed: bool = False


BiasSink: TypeAlias = Callable[[BiasSite, Tensor], None]
"""Receives the elementwise contributions dF/dy * b at a site, in the shape of y.

Where rows of y were picked from another value by what they hold, in the shape of that value.
"""


def watch_biases(
    reading: GraphReading, sink: BiasSink, vocabulary: Vocabulary
) -> Iterator[RemovableHandle]:
    """Register hooks that report the contribution of every bias while gradients are computed.

    Args:
        reading: The graph.
        sink: Receives the contributions.
        vocabulary: The roles of the operations that compute constants from parameters.

    Yields:
        The handle of every hook as soon as it is registered: reading a later bias may fail, and
        the earlier hooks must be removable then.

    Raises:
        UnknownConstantError: If a constant comes from an operation whose value cannot be found.
    """
    constants, routes = ConstantValues(vocabulary), Routes(reading)
    for number, node_reading in enumerate(reading.nodes):
        if reading.receives(node_reading):
            site = _site(node_reading, number)
            at_home = _carried_home(sink, routes, node_reading.node)
            yield from _watch_recorded(node_reading, site, at_home, constants)
            yield from _watch_unrecorded(node_reading, site, at_home)


def watch_bias_sites(reading: GraphReading, sink: BiasSink) -> Iterator[RemovableHandle]:
    """Register hooks that report dF/dy at every site of biases, whatever the biases are.

    Args:
        reading: The graph.
        sink: Receives the gradients; those of values that the rules hold constant among them.

    Yields:
        The handle of every hook as soon as it is registered.
    """
    routes = Routes(reading)

    def report(site: BiasSite, node: Node) -> RemovableHandle:
        def before(gradients: tuple[Tensor | None, ...]) -> None:
            if gradients[0] is not None:
                sink(site, routes.home(node, gradients[0]))

        return node.register_prehook(before)

    for site in _sites(reading, routes):
        yield report(site, reading.nodes[site.number].node)


def bias_sites(reading: GraphReading) -> list[BiasSite]:
    """Return the sites of biases that receive a gradient."""
    return _sites(reading, Routes(reading))


def _sites(reading: GraphReading, routes: Routes) -> list[BiasSite]:
    return [
        replace(_site(node_reading, number), is_routed=routes.leads_from(node_reading.node))
        for number, node_reading in enumerate(reading.nodes)
        if reading.receives(node_reading) and _may_add(node_reading)
    ]


def _may_add(reading: NodeReading) -> bool:
    """Whether an operation may add a constant."""
    operation = reading.operation
    if operation is None or is_noted(reading.node):
        return operation is not None
    held = operation.value is not None and _is_held(reading)
    recorded = zip(reading.flows, reading.node.next_functions, strict=True)
    constants = any(flow is Flow.CONSTANT and edge[0] is not None for flow, edge in recorded)
    inner = operation.additive is not None and (constants or operation.role is not Role.LINEAR)
    return held or inner or bool(_separate_constants(reading, operation))


def _carried_home(sink: BiasSink, routes: Routes, node: Node) -> BiasSink:
    def receive(site: BiasSite, contribution: Tensor) -> None:
        sink(site, routes.home(node, contribution))

    return receive


def _watch_unrecorded(
    reading: NodeReading, site: BiasSite, sink: BiasSink
) -> list[RemovableHandle]:
    """Watch constants without a trace in the graph, and values that the rules hold constant."""
    operation, node = reading.operation, reading.node
    values: list[tuple[BiasSite, Callable[[Node], Tensor]]] = []
    if is_noted(node):
        values.append((replace(site, kind=BiasKind.OBSERVED), observed_constant))
    if operation is not None and operation.value is not None and _is_held(reading):
        values.append((replace(site, kind=BiasKind.HELD), operation.value))

    def before(gradients: tuple[Tensor | None, ...]) -> None:
        if gradients[0] is not None:
            for place, value_of in values:
                # Masked scores are infinite, with a gradient of zero.
                contribution = _contribution(gradients[0], value_of(node))
                sink(place, contribution.masked_fill(gradients[0] == 0, 0))

    return [node.register_prehook(before)] if values else []


def _contribution(gradient: Tensor, bias: Tensor) -> Tensor:
    product = gradient.conj() * bias
    return product.real if product.is_complex() else product


def _is_held(reading: NodeReading) -> bool:
    edges = zip(reading.correction.weights, reading.flows, strict=True)
    return not any(weight and flow is not Flow.CONSTANT for weight, flow in edges)


def _site(reading: NodeReading, number: int) -> BiasSite:
    return BiasSite(reading.node.name(), reading.reach, reading.node._sequence_nr(), number)


def _watch_recorded(
    reading: NodeReading, site: BiasSite, sink: BiasSink, constants: ConstantValues
) -> list[RemovableHandle]:
    """Watch constants that are recorded as operands."""
    node, operation = reading.node, reading.operation
    if operation is None:
        return []
    additions = [_addend(reading, operation, constants)]
    edges = _separate_constants(reading, operation)
    if edges:
        additions.append(constants.image(node, operation, edges))
    biases = [addition for addition in additions if addition is not None]

    def before(gradients: tuple[Tensor | None, ...]) -> None:
        if gradients[0] is not None:
            for bias in biases:
                sink(site, _contribution(gradients[0], bias))

    return [node.register_prehook(before)] if biases else []


def _addend(reading: NodeReading, operation: Operation, constants: ConstantValues) -> Tensor | None:
    """Return the constant that an operation with an addend of its own adds."""
    if operation.additive is None:
        return None

    def constant_of(edge: int) -> Tensor | None:
        recorded = reading.node.next_functions[edge]
        if recorded[0] is None or reading.flows[edge] is not Flow.CONSTANT:
            return None
        return constants.at(recorded)

    return operation.additive(reading.node, constant_of)


def _separate_constants(reading: NodeReading, operation: Operation) -> list[int]:
    """Return the edges of constants that add to what the other operands make of themselves.

    These are operands of an operation that adds or arranges, and factors that are all constant
    while the addend of their product, or of a normalisation, is not.
    """
    flows, recorded = reading.flows, reading.node.next_functions
    constants = [
        i for i, f in enumerate(flows) if f is Flow.CONSTANT and recorded[i][0] is not None
    ]
    if operation.role is Role.LINEAR:
        return [] if operation.additive is not None or operation.identity else constants
    joined = operation.role in (Role.PRODUCT, Role.NORMALIZATION)
    if not joined or any(flows[i] is not Flow.CONSTANT for i in operation.factors):
        return []
    return [i for i in operation.factors if i in constants]
