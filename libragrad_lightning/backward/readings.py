"""What is read of a graph: its nodes, their roles and flows, and what a rule set does to them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from libragrad_lightning.backward.errors import UnknownOperationError
from libragrad_lightning.backward.operations import Edge, Node, Operation
from libragrad_lightning.backward.treatments import Correction, Flow


@dataclass(frozen=True)
class NodeReading:
    """What was read of one node.

    Attributes:
        node: The node of the autograd graph.
        operation: Its entry in the vocabulary, None if it has none.
        flows: The flow of every operand.
        flow: The flow of its value; outputs that the correction calls dead are dead all the same.
        reach: Bit i is set if the value depends on explained tensor i, pruned paths included.
        correction: What the rule set does to its gradients.
    """

    node: Node
    operation: Operation | None
    flows: tuple[Flow, ...]
    flow: Flow
    reach: int
    correction: Correction


@dataclass(frozen=True)
class GraphReading:
    """All nodes on which the outputs and at least one explained tensor meet, inputs first.

    Attributes:
        nodes: The nodes.
        receiving: Those that receive a gradient in the corrected graph: a path that no rule prunes
            leads to them from the outputs.
        sources: Where the explained tensors are.
    """

    nodes: tuple[NodeReading, ...]
    receiving: frozenset[Node]
    sources: frozenset[Edge]

    def receives(self, reading: NodeReading) -> bool:
        """Return whether a node receives a gradient in the corrected graph."""
        return reading.node in self.receiving

    def shape_at(self, number: int) -> torch.Size:
        """Return the shape of the (first) output of a node by its number."""
        return torch.Size(self.nodes[number].node._input_metadata[0].shape)

    def unknown(self) -> Counter[str]:
        """Return how often each operation without an entry is met by a gradient.

        Operations whose gradient would be pruned, such as those behind the queries of attention
        under `LIBRA`, need no role.
        """
        return Counter(
            r.node.name() for r in self.nodes if r.operation is None and self.receives(r)
        )


def check_known(reading: GraphReading) -> None:
    """Raise if the explained tensor flows through an operation without an entry.

    Raises:
        UnknownOperationError: Names every such operation and how often it occurs.
    """
    unknown = reading.unknown()
    if unknown:
        raise UnknownOperationError(unknown_sentence(unknown))


def unknown_sentence(unknown: Counter[str]) -> str:
    """Return one sentence that names unknown operations and says what to do about them."""
    listed = ", ".join(f"{name} ({count}x)" for name, count in sorted(unknown.items()))
    hidden = any(name.endswith("CopySlices") for name in unknown)
    in_place = (
        "compute what CopySlices hides, an operation in place on a view, out of place "
        "(`inplace=False`), "
    )
    return (
        f"The explained tensor flows through operations whose role is unknown: {listed}; "
        f"{in_place if hidden else ''}give each a role with "
        "`rules.vocabulary.extended({name: Operation(Role...)})`, or pass `unknown='warn'` or "
        "`'ignore'` to keep their ordinary gradients (`diagnosis.coverage` names their modules)."
    )
