"""Counts the paths of a recorded graph, which shows through which tensors everything flows."""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor

from libragrad_lightning.backward import Edge, edge_of, nodes_inputs_first


class PathCounts:
    """The numbers of paths from an input to an output through every tensor in between.

    A tensor that lies on all paths carries everything that the output knows of the input: the
    FullGrad decomposition at it is complete on its own.

    Args:
        output: A tensor with a recorded graph.
        source: The tensor where the paths start.
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
        self._all = self._arriving[start[0]] * self._leaving[start]

    def carries_everything(self, edge: Edge) -> bool:
        """Return whether all paths lead through a tensor."""
        return self._all > 0 and self._arriving.get(edge[0], 0) * self._leaving[edge] == self._all

    def branches_between(self, first: Edge, second: Edge) -> bool:
        """Return whether paths part and meet again between two tensors that carry everything."""
        return self._arriving[second[0]] > self._arriving[first[0]]
