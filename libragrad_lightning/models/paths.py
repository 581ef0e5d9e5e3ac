"""Counts the paths of a recorded graph, which shows through which tensors everything flows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from operator import or_

from torch import Tensor

from libragrad_lightning.backward.graph import Edge, edge_of, nodes_inputs_first

_LAYERS = (
    *("ConvolutionBackward", "MkldnnConvolutionBackward", "AddmmBackward", "MmBackward"),
    *("BmmBackward", "BaddbmmBackward", "AddmvBackward", "MvBackward", "EmbeddingBackward"),
)
"""Operations that mix the pixels or channels of an image."""


class PathCounts:
    """The numbers of paths from an input to an output through every tensor in between.

    A tensor that lies on all paths carries everything that the output knows of the input: the
    FullGrad decomposition at it is complete on its own.

    Args:
        output: A tensor with a recorded graph.
        source: The tensor where the paths start.

    Attributes:
        total: The number of all paths.
    """

    def __init__(self, output: Tensor, source: Tensor) -> None:
        start, end = edge_of(source), edge_of(output)
        nodes = nodes_inputs_first([end[0]])
        self._arriving = {None: 0, start[0]: 1}
        for node in nodes:
            if node is not start[0]:
                self._arriving[node] = sum(self._arriving[n] for n, _ in node.next_functions)
        self._leaving: defaultdict[Edge, int] = defaultdict(int, {end: 1})
        onward: defaultdict[object, int] = defaultdict(int, {end[0]: 1})
        for node in reversed(nodes):
            for edge in node.next_functions:
                self._leaving[edge] += onward[node]
                onward[edge[0]] += onward[node]
        self.total = self._arriving[start[0]] * self._leaving[start]
        self._positions = {node: i for i, node in enumerate(nodes)}
        self._layers: dict[object, bool] = {None: False}
        for node in nodes:
            behind = any(self._layers[n] for n, _ in node.next_functions)
            self._layers[node] = behind or node.name().startswith(_LAYERS)

    def through(self, edge: Edge) -> int:
        """Return how many paths lead through a tensor; `total` if it carries everything."""
        return self._arriving.get(edge[0], 0) * self._leaving[edge]

    def branches_between(self, first: Edge, second: Edge) -> bool:
        """Return whether paths part and meet again between two tensors, one behind the other."""
        return self._arriving[second[0]] > self._arriving[first[0]]

    def is_computed(self, edge: Edge) -> bool:
        """Return whether layers made a tensor of the source, not only padding or normalization."""
        return self._layers.get(edge[0], False)

    def position(self, edge: Edge) -> tuple[int, int]:
        """Return the place of a tensor in an order in which it follows what it comes from."""
        return self._positions[edge[0]], edge[1]

    def origins(self, marks: Sequence[Edge], edges: Sequence[Edge]) -> list[int]:
        """Return for tensors, as bits, which of the marked tensors they are or come from."""
        own: defaultdict[object, int] = defaultdict(int)
        for i, (node, _) in enumerate(marks):
            own[node] |= 1 << i
        found: dict[object, int] = {None: 0}
        for node in self._positions:
            found[node] = reduce(or_, (found[n] for n, _ in node.next_functions), own[node])
        return [found[node] for node, _ in edges]
