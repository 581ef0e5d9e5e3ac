"""Nodes and edges of the graph that autograd records, and the order of its nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

Node: TypeAlias = Any
"""A node of the autograd graph (`torch.autograd.graph.Node`), whose saved tensors are dynamic."""

Edge: TypeAlias = tuple[Node, int]
"""A node and the number of one of its outputs; the node is None where no gradient is recorded."""


def edge_of(tensor: Tensor) -> Edge:
    """Return the node that made a tensor, and which of its outputs the tensor is."""
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def is_leaf_node(node: Node) -> bool:
    """Return whether a node stands for a leaf tensor."""
    return node is not None and hasattr(node, "variable")


def shape_of(node: Node, number: int = 0) -> torch.Size:
    """Return the shape of an output of a node, by its number."""
    return torch.Size(node._input_metadata[number].shape)


def wrapped_axis(axis: int) -> int:
    """Return a saved axis; autograd hands out -1 as an unsigned number."""
    return axis - 2**64 if axis >= 2**63 else axis


def nodes_inputs_first(roots: Iterable[Node], ends: Collection[Node] = frozenset()) -> list[Node]:
    """Return every node behind the roots, each after all nodes that it hands gradients to.

    Nothing behind the `ends` is looked at.
    """
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in roots]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if node not in ends:
                children = (child for child, _ in node.next_functions)
                stack.extend((child, False) for child in children if child is not None)
    return order
