"""Rows that were picked from a value by what they hold, as those that a router sends to experts.

How many there are, and to which image each of them belongs, differs from one forward pass to the
next, so that no axis of theirs runs over images. What they contribute is carried back to the value
that they were picked from, along the way that they came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import dropwhile
from operator import add
from typing import TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.backward.graph import (
    AnnotatedGraph,
    AnnotatedNode,
    Edge,
    Flow,
    Node,
    Operation,
    handed_on,
    shape_of,
)
from libragrad_lightning.backward.rules import Linear, Movement

_NUMBERS = 127
"""Rows are told apart by as many numbers, which every dtype holds exactly."""

_Back: TypeAlias = Callable[[Tensor, int], Mapping[int, Tensor]]
"""Hands values of one output of a node, by its number, to the operands that they came from."""


@dataclass
class Routes:
    """The ways on which rows that were picked by their content go through a graph.

    Attributes:
        graph: The graph.
    """

    graph: AnnotatedGraph
    _steps: dict[Node, _Back] = field(default_factory=dict, repr=False)
    _lost: set[Node] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        # Nothing is routed before the first rows are picked, which few models do at all.
        for annotated in dropwhile(_picks_none, self.graph.nodes):
            self._follow(annotated)

    def _follow(self, annotated: AnnotatedNode) -> None:
        """Note the step back from a node, or that the way back is lost there."""
        node, movement = annotated.node, _movement(annotated.operation)
        edges = [i for i, flow in enumerate(annotated.flows) if flow is not Flow.CONSTANT]
        if any(self._is_lost(node.next_functions[i]) for i in edges):
            if movement is not Movement.PUT:
                self._lost.add(node)
            return
        step = self._step(node, movement, edges)
        if step is not None:
            self._steps[node] = step
            picked_again = movement is Movement.PICK and self._routed(node, edges)
            if picked_again and self._is_home_again(node):
                del self._steps[node]
        elif self._routed(node, edges) and movement is not Movement.PUT:
            self._lost.add(node)

    def leads_from(self, node: Node) -> bool:
        """Return whether the values of a node are those of picked rows."""
        return node in self._steps or node in self._lost

    def home(self, node: Node, values: Tensor, number: int = 0) -> Tensor:
        """Return values at the output of a node in the form of what its rows were picked from.

        Sums stay what they are; values at other nodes stay as they are. Where the way back is not
        known, the sum of all values is all that is left.

        Args:
            node: The node.
            values: One value for each element of one of its outputs.
            number: The number of the output.
        """
        if node in self._lost:
            return values.sum()
        step = self._steps.get(node)
        if step is None or values.shape != _shape(node, number):
            return values
        parts = []
        for i, moved in step(values, number).items():
            edge = node.next_functions[i]
            at_home = edge in self.graph.sources
            parts.append(moved if at_home else self.home(edge[0], moved, edge[1]))
        return reduce(add, parts)

    def _is_home_again(self, node: Node) -> bool:
        """Whether rows that were picked before stand where they came from, as behind two sorts."""
        metadata = node._input_metadata[0]
        values = torch.zeros(tuple(metadata.shape), dtype=metadata.dtype, device=metadata.device)
        first = values[..., 0]
        first.copy_(1 + torch.arange(first.numel()).view(first.shape) % _NUMBERS)
        found = self.home(node, values)
        if found.shape != values.shape:
            return False
        return bool(((found.sum(-1) - first).abs() < 0.25).all())

    def _is_lost(self, edge: Edge) -> bool:
        return edge not in self.graph.sources and edge[0] in self._lost

    def _routed(self, node: Node, edges: Sequence[int]) -> list[int]:
        """Return the edges at which picked rows arrive."""
        operands = ((i, node.next_functions[i]) for i in edges)
        sources = self.graph.sources
        return [i for i, edge in operands if edge not in sources and edge[0] in self._steps]

    def _step(self, node: Node, movement: Movement | None, edges: Sequence[int]) -> _Back | None:
        """Return the step back from a node, if picked rows get there and it is known."""
        routed = self._routed(node, edges)
        if movement is Movement.PICK and list(edges) == [0]:
            return _undo(node, [0]) if routed or _picks_rows(node) else None
        if not routed or movement is Movement.PUT:
            return None
        if movement is Movement.JOIN:
            return _undo(node, routed) if routed == list(edges) else None
        if movement is Movement.ARRANGE:
            return _undo(node, routed) if len(edges) == 1 else None
        shape, operand = _shape(node), _operand_shape(node, routed[0])
        if shape is None or operand is None or shape[:-1] != operand[:-1]:
            return None
        return _to_width(routed[0], operand[-1])


def _movement(operation: Operation | None) -> Movement | None:
    return operation.movement if isinstance(operation, Linear) else None


def _picks_none(annotated: AnnotatedNode) -> bool:
    return _movement(annotated.operation) is not Movement.PICK


def _picks_rows(node: Node) -> bool:
    """Whether elements are picked across images, which are along the first axis of the operand."""
    shape, operand = _shape(node), _operand_shape(node, 0)
    if shape is None or operand is None or shape[0] != operand[0]:
        return True
    numbers = getattr(node, "_saved_indices", None)
    if numbers is None:  # along an axis of its own
        return getattr(node, "_saved_dim", 0) == 0
    in_order = torch.arange(operand[0])
    first = numbers[0]
    return first is not None and not torch.equal(first.flatten().cpu(), in_order)


def _undo(node: Node, edges: Sequence[int]) -> _Back:
    """Return what moves the elements of one of its outputs back, as autograd does."""

    def back(values: Tensor, number: int) -> Mapping[int, Tensor]:
        outputs = range(len(node._input_metadata))
        moved = handed_on(node, tuple(values if i == number else None for i in outputs))
        return {edge: found for edge in edges if (found := moved[edge]) is not None}

    return back


def _to_width(edge: int, width: int) -> _Back:
    """Return what hands values of rows to rows of another width."""

    def back(values: Tensor, number: int) -> Mapping[int, Tensor]:
        rows = values.sum(-1, keepdim=True) / width
        return {edge: rows.expand(*values.shape[:-1], width).contiguous()}

    return back


def _shape(node: Node, number: int = 0) -> torch.Size | None:
    return shape_of(node, number) or None


def _operand_shape(node: Node, edge: int) -> torch.Size | None:
    operand, number = node.next_functions[edge]
    if operand is None:
        return None
    return _shape(operand, number)
