"""Rows that were picked from a value by what they hold, as those that a router sends to experts.

How many there are, and to which image each of them belongs, differs from one forward pass to the
next, so that no axis of theirs runs over images. What they contribute is carried back to the value
that they were picked from, along the way that they came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.backward.operations import Edge, Node
from libragrad_lightning.backward.readings import GraphReading
from libragrad_lightning.backward.treatments import Flow

_PICK = ("IndexBackward", "IndexSelectBackward", "GatherBackward", "MaskedSelectBackward")
"""Operations that pick elements of their operand by numbers or by a mask."""
_ARRANGE = tuple(
    f"{name}Backward"
    for name in (
        *("View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Squeeze", "Clone"),
        *("Unsqueeze", "Split", "SplitWithSizes", "Unbind", "Select", "Slice", "Expand", "Repeat"),
        *("ConstantPadNd", "Flatten"),
    )
)
"""Operations that move elements, and know how to move them back."""


_JOIN = ("CatBackward", "StackBackward")
"""Operations that put several values side by side."""
_PUT = tuple(
    f"{name}Backward"
    for name in (
        *("IndexPut", "IndexAdd", "IndexCopy", "IndexReduce", "Scatter", "ScatterAdd"),
        *("ScatterReduce", "MaskedScatter", "SliceScatter", "SelectScatter"),
    )
)
"""Operations that put picked elements back."""

_NUMBERS = 127
"""Rows are told apart by as many numbers, which every dtype holds exactly."""

_Back: TypeAlias = Callable[[Tensor, int], Mapping[int, Tensor]]
"""Hands values of one output of a node, by its number, to the operands that they came from."""


@dataclass
class Routes:
    """The ways on which rows that were picked by their content go through a graph.

    Attributes:
        reading: The graph.
    """

    reading: GraphReading
    _steps: dict[Node, _Back] = field(default_factory=dict, repr=False)
    _lost: set[Node] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        for node_reading in self.reading.nodes:
            node = node_reading.node
            edges = [i for i, flow in enumerate(node_reading.flows) if flow is not Flow.CONSTANT]
            if any(self._is_lost(node.next_functions[i]) for i in edges):
                if not node.name().startswith(_PUT):
                    self._lost.add(node)
                continue
            step = self._step(node, edges)
            if step is not None:
                self._steps[node] = step
                if self._routed(node, edges) and self._is_home_again(node):
                    del self._steps[node]
            elif self._routed(node, edges) and not node.name().startswith(_PUT):
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
            at_home = edge in self.reading.sources
            parts.append(moved if at_home else self.home(edge[0], moved, edge[1]))
        return reduce(add, parts)

    def _is_home_again(self, node: Node) -> bool:
        """Whether rows that were picked before stand where they came from, as behind two sorts."""
        if not node.name().startswith(_PICK):
            return False
        metadata = node._input_metadata[0]
        values = torch.zeros(tuple(metadata.shape), dtype=metadata.dtype, device=metadata.device)
        first = values[..., 0]
        first.copy_(1 + torch.arange(first.numel()).view(first.shape) % _NUMBERS)
        found = self.home(node, values)
        if found.shape != values.shape:
            return False
        return bool(((found.sum(-1) - first).abs() < 0.25).all())

    def _is_lost(self, edge: Edge) -> bool:
        return edge not in self.reading.sources and edge[0] in self._lost

    def _routed(self, node: Node, edges: Sequence[int]) -> list[int]:
        """Return the edges at which picked rows arrive."""
        operands = ((i, node.next_functions[i]) for i in edges)
        sources = self.reading.sources
        return [i for i, edge in operands if edge not in sources and edge[0] in self._steps]

    def _step(self, node: Node, edges: Sequence[int]) -> _Back | None:
        """Return the step back from a node, if picked rows get there and it is known."""
        name, routed = node.name(), self._routed(node, edges)
        if name.startswith(_PICK) and list(edges) == [0]:
            return _undo(node, [0]) if routed or _picks_rows(node) else None
        if not routed or name.startswith(_PUT):
            return None
        if name.startswith(_JOIN):
            return _undo(node, routed) if routed == list(edges) else None
        if name.startswith(_ARRANGE):
            return _undo(node, routed) if len(edges) == 1 else None
        shape, operand = _shape(node), _operand_shape(node, routed[0])
        if shape is None or operand is None or shape[:-1] != operand[:-1]:
            return None
        return _to_width(routed[0], operand[-1])


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
        handed = node(*(values if i == number else None for i in outputs))
        moved = handed if isinstance(handed, tuple) else (handed,)
        return {edge: moved[edge] for edge in edges}

    return back


def _to_width(edge: int, width: int) -> _Back:
    """Return what hands values of rows to rows of another width."""

    def back(values: Tensor, number: int) -> Mapping[int, Tensor]:
        rows = values.sum(-1, keepdim=True) / width
        return {edge: rows.expand(*values.shape[:-1], width).contiguous()}

    return back


def _shape(node: Node, number: int = 0) -> torch.Size | None:
    shape = node._input_metadata[number].shape
    return torch.Size(shape) if len(shape) else None


def _operand_shape(node: Node, edge: int) -> torch.Size | None:
    operand, number = node.next_functions[edge]
    if operand is None:
        return None
    shape = operand._input_metadata[number].shape
    return torch.Size(shape) if len(shape) else None
