"""Measures what each constant contributes to the output.

The contribution of a bias b is dF/dy * b at the output y of the operation that adds it (FullGrad,
Srinivas & Fleuret 2019; Mehri et al. 2025, def. 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from libragrad_lightning.backward.biases.observer import is_noted, observed_constant
from libragrad_lightning.backward.biases.routing import Routes
from libragrad_lightning.backward.biases.sites import (
    BiasKind,
    BiasSink,
    BiasSite,
    is_held,
    separate_constants,
    site_of,
)
from libragrad_lightning.backward.biases.values import ConstantValues
from libragrad_lightning.backward.graph import AnnotatedGraph, AnnotatedNode, Flow, Node, Operation


def watch_biases(graph: AnnotatedGraph, sink: BiasSink) -> Iterator[RemovableHandle]:
    """Register hooks that report the contribution of every bias while gradients are computed.

    Args:
        graph: The graph.
        sink: Receives the contributions.

    Yields:
        The handle of every hook as soon as it is registered: reading a later bias may fail, and
        the earlier hooks must be removable then.

    Raises:
        UnknownConstantError: If a constant comes from an operation whose value cannot be found.
    """
    constants, routes = ConstantValues(graph.vocabulary), Routes(graph)
    for number, annotated in enumerate(graph.nodes):
        if graph.receives(annotated):
            site = site_of(annotated, number)
            at_home = _carried_home(sink, routes, annotated.node)
            yield from _watch_recorded(annotated, site, at_home, constants)
            yield from _watch_unrecorded(annotated, site, at_home)


def _carried_home(sink: BiasSink, routes: Routes, node: Node) -> BiasSink:
    def receive(site: BiasSite, contribution: Tensor) -> None:
        sink(site, routes.home(node, contribution))

    return receive


def _watch_unrecorded(
    annotated: AnnotatedNode, site: BiasSite, sink: BiasSink
) -> list[RemovableHandle]:
    """Watch constants without a trace in the graph, and values that the rules hold constant."""
    operation, node = annotated.operation, annotated.node
    values: list[tuple[BiasSite, Callable[[Node], Tensor]]] = []
    if is_noted(node, operation):
        values.append((replace(site, kind=BiasKind.OBSERVED), observed_constant))
    if operation is not None and operation.value is not None and is_held(annotated):
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


def _watch_recorded(
    annotated: AnnotatedNode, site: BiasSite, sink: BiasSink, constants: ConstantValues
) -> list[RemovableHandle]:
    """Watch constants that are recorded as operands."""
    node, operation = annotated.node, annotated.operation
    if operation is None:
        return []
    additions = [_addend(annotated, operation, constants)]
    edges = separate_constants(annotated, operation)
    if edges:
        additions.append(constants.image(node, operation, edges))
    biases = [addition for addition in additions if addition is not None]

    def before(gradients: tuple[Tensor | None, ...]) -> None:
        if gradients[0] is not None:
            for bias in biases:
                sink(site, _contribution(gradients[0], bias))

    return [node.register_prehook(before)] if biases else []


def _addend(
    annotated: AnnotatedNode, operation: Operation, constants: ConstantValues
) -> Tensor | None:
    """Return the constant that an operation with an addend of its own adds."""
    if operation.additive is None:
        return None

    def constant_of(edge: int) -> Tensor | None:
        recorded = annotated.node.next_functions[edge]
        if recorded[0] is None or annotated.flows[edge] is not Flow.CONSTANT:
            return None
        return constants.at(recorded)

    return operation.additive(annotated.node, constant_of)
