"""Rows that were picked from a value by what they hold, as those that a router sends to experts.

How many there are, and to which image each of them belongs, differs from one forward pass to the
next, so that no axis of theirs runs over images. What they contribute is carried back to the value
that they were picked from, along the way that they came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from libragrad_lightning.backward.operations import Edge, Node
from libragrad_lightning.backward.readings import GraphReading, NodeReading
from libragrad_lightning.backward.treatments import Flow

_PICK = ("IndexBackward", "IndexSelectBackward", "GatherBackward", "MaskedSelectBackward")
"""Operations that pick elements of their operand by numbers or by a mask."""
_ARRANGE = tuple(
    f"{name}Backward"
    for name in (
        *("View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Squeeze", "Clone"),
        *("Unsqueeze", "Split", "SplitWithSizes", "Unbind", "Select", "Slice", "Expand", "Repeat"),
        *("ConstantPadNd", "Cat", "Stack"),
    )
)
"""Operations that move elements, and know how to move them back."""


@dataclass(frozen=True)
class _Step:
    """One step back along the way of picked rows."""

    edge: int
    back: Callable[[Tensor], Tensor]


@dataclass
class Routes:
    """The ways on which rows that were picked by their content go through a graph.

    Attributes:
        reading: The graph.
    """

    reading: GraphReading
    _steps: Mapping[Node, _Step] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        steps: dict[Node, _Step] = {}
        for node_reading in self.reading.nodes:
            step = _step(node_reading, steps, self.reading.sources)
            if step is not None:
                steps[node_reading.node] = step
        self._steps = steps

    def home(self, node: Node, values: Tensor) -> Tensor:
        """Return values at the output of a node in the form of what its rows were picked from.

        Sums stay what they are; values at other nodes stay as they are.

        Args:
            node: The node.
            values: One value for each element of its (first) output.
        """
        while node in self._steps and values.shape == _shape(node):
            step = self._steps[node]
            values, edge = step.back(values), node.next_functions[step.edge]
            if edge in self.reading.sources or edge[1]:
                return values
            node = edge[0]
        return values


def _step(
    reading: NodeReading, steps: Mapping[Node, _Step], sources: frozenset[Edge]
) -> _Step | None:
    """Return the step back from a node, if picked rows get there."""
    node, name = reading.node, reading.node.name()
    edges = [i for i, flow in enumerate(reading.flows) if flow is not Flow.CONSTANT]
    if name.startswith(_PICK) and edges == [0]:
        return _Step(0, _undo(node, 0)) if _picks_rows(node) else None
    routed = [i for i in edges if _is_routed(node.next_functions[i], steps, sources)]
    if not routed:
        return None
    if name.startswith(_ARRANGE):
        return _Step(routed[0], _undo(node, routed[0])) if len(edges) == 1 else None
    shape, operand = _shape(node), _operand_shape(node, routed[0])
    if shape is None or operand is None or shape[:-1] != operand[:-1]:
        return None
    return _Step(routed[0], _to_width(operand[-1]))


def _is_routed(edge: Edge, steps: Mapping[Node, _Step], sources: frozenset[Edge]) -> bool:
    return edge not in sources and edge[0] in steps


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


def _undo(node: Node, edge: int) -> Callable[[Tensor], Tensor]:
    """Return what moves elements back, as autograd does."""

    def back(values: Tensor) -> Tensor:
        handed = node(values)
        moved: Tensor = handed[edge] if isinstance(handed, tuple) else handed
        return moved

    return back


def _to_width(width: int) -> Callable[[Tensor], Tensor]:
    """Return what hands values of rows to rows of another width."""

    def back(values: Tensor) -> Tensor:
        rows = values.sum(-1, keepdim=True) / width
        return rows.expand(*values.shape[:-1], width).contiguous()

    return back


def _shape(node: Node) -> torch.Size | None:
    shape = node._input_metadata[0].shape
    return torch.Size(shape) if len(shape) else None


def _operand_shape(node: Node, edge: int) -> torch.Size | None:
    operand, number = node.next_functions[edge]
    if operand is None:
        return None
    shape = operand._input_metadata[number].shape
    return torch.Size(shape) if len(shape) else None
