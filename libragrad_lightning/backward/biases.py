"""Finds the constants that add to the output, and measures what each contributes.

FullGrad (Srinivas & Fleuret 2019; Mehri et al. 2025, def. 1) attributes the output to the input and
to every bias: the contribution of a bias b is dF/dy * b at the output y of the operation that adds
it. Any value that does not depend on the explained tensor and enters additively is such a bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.utils.hooks import RemovableHandle

from libragrad_lightning.backward.constants import is_noted, observed_constant
from libragrad_lightning.backward.graph import GraphReading, NodeReading, is_leaf_node
from libragrad_lightning.backward.operations import Node
from libragrad_lightning.backward.rule_sets import Flow


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
        kind: Where the constant comes from.
    """

    operation: str
    reach: int
    sequence: int
    kind: BiasKind = BiasKind.RECORDED


BiasSink: TypeAlias = Callable[[BiasSite, Tensor], None]
"""Receives the elementwise contributions dF/dy * b at a site, in the shape of y or of the bias."""


def watch_biases(reading: GraphReading, sink: BiasSink) -> Iterator[RemovableHandle]:
    """Register hooks that report the contribution of every bias while gradients are computed.

    Yields:
        The handle of every hook as soon as it is registered: reading a later bias may fail, and
        the earlier hooks must be removable then.
    """
    for node_reading in reading.nodes:
        yield from _watch(node_reading, sink)


def constant_leaves(reading: GraphReading) -> list[Tensor]:
    """Return the leaves behind constants that only ordinary gradients can measure.

    Operations such as concatenation hand a constant operand its own part of the gradient. Autograd
    computes that part only if a leaf behind it is asked for.
    """
    leaves: dict[Node, Tensor] = {}
    for r in reading.nodes:
        for edge in _operand_constants(r):
            leaves.update(_leaves_behind(r.node.next_functions[edge][0]))
    return list(leaves.values())


def _watch(reading: NodeReading, sink: BiasSink) -> list[RemovableHandle]:
    return [*_watch_constants(reading, sink), *_watch_unrecorded(reading, sink)]


def _watch_unrecorded(reading: NodeReading, sink: BiasSink) -> list[RemovableHandle]:
    """Watch constants without a trace in the graph, and values that the rules hold constant."""
    operation, node = reading.operation, reading.node
    values: list[tuple[BiasSite, Callable[[Node], Tensor]]] = []
    if is_noted(node):
        values.append((_site(reading, BiasKind.OBSERVED), observed_constant))
    if operation is not None and operation.value is not None and _is_held(reading):
        values.append((_site(reading, BiasKind.HELD), operation.value))

    def before(gradients: tuple[Tensor | None, ...]) -> None:
        if gradients[0] is not None:
            for site, value_of in values:
                # Masked scores are infinite, with a gradient of zero.
                contribution = gradients[0] * value_of(node)
                sink(site, contribution.masked_fill(gradients[0] == 0, 0))

    return [node.register_prehook(before)] if values else []


def _is_held(reading: NodeReading) -> bool:
    edges = zip(reading.correction.weights, reading.flows, strict=True)
    return not any(weight and flow is not Flow.CONSTANT for weight, flow in edges)


def _site(reading: NodeReading, kind: BiasKind) -> BiasSite:
    return BiasSite(reading.node.name(), reading.reach, reading.node._sequence_nr(), kind)


def _watch_constants(reading: NodeReading, sink: BiasSink) -> list[RemovableHandle]:
    """Watch constants that are recorded as operands."""
    operation, node = reading.operation, reading.node
    site = _site(reading, BiasKind.RECORDED)
    if operation is not None and operation.additive is not None:
        bias = operation.additive(node, lambda edge: _constant_of(reading, edge))
        if bias is None:
            return []

        def before(gradients: tuple[Tensor | None, ...]) -> None:
            if gradients[0] is not None:
                sink(site, gradients[0] * bias)

        return [node.register_prehook(before)]
    constants = {i: _constant_of(reading, i) for i in _operand_constants(reading)}
    if not constants:
        return []

    def after(incoming: tuple[Tensor | None, ...], _: tuple[Tensor | None, ...]) -> None:
        for i, value in constants.items():
            gradient = incoming[i]
            if gradient is not None and value is not None:
                sink(site, gradient * value)

    return [node.register_hook(after)]


def _operand_constants(reading: NodeReading) -> list[int]:
    """Edges of constant operands of an operation that simply adds or arranges its operands."""
    operation = reading.operation
    if operation is None or operation.additive is not None or operation.factors:
        return []
    edges = reading.node.next_functions
    return [
        i
        for i, flow in enumerate(reading.flows)
        if flow is Flow.CONSTANT and edges[i][0] is not None
    ]


def _constant_of(reading: NodeReading, edge: int) -> Tensor | None:
    """Return the value that enters at an edge if it is a constant with a recorded leaf."""
    node, number = reading.node.next_functions[edge]
    if node is None or reading.flows[edge] is not Flow.CONSTANT:
        return None
    if is_leaf_node(node):
        variable: Tensor = node.variable
        return variable.detach()
    return _linear_value(node, number)


def _linear_value(node: Node, number: int) -> Tensor:
    """Return the value behind an edge that is a linear function of leaves, such as their cat.

    Autograd keeps no values of linear operations, but it knows their transpose J': the value J b of
    leaves b is the gradient of <b, J' u> with respect to u.
    """
    metadata = node._input_metadata[number]
    leaves = list(_leaves_behind(node).values())
    u = torch.zeros(metadata.shape, dtype=metadata.dtype, device=metadata.device)
    u.requires_grad_()
    with torch.enable_grad():
        transposed = torch.autograd.grad(
            [GradientEdge(node, number)], leaves, [u], retain_graph=True, create_graph=True
        )
        products = [(leaf.detach() * t).sum() for leaf, t in zip(leaves, transposed, strict=True)]
        (value,) = torch.autograd.grad(torch.stack(products).sum(), u)
    return value


def _leaves_behind(node: Node) -> dict[Node, Tensor]:
    leaves: dict[Node, Tensor] = {}
    seen: set[Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current is None or current in seen:
            continue
        seen.add(current)
        if is_leaf_node(current):
            leaves[current] = current.variable
        stack.extend(child for child, _ in current.next_functions)
    return leaves
