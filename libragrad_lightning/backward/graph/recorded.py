"""The recorded graph between outputs and explained tensors, before any rule."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from libragrad_lightning.backward.errors import UnreachableInputError
from libragrad_lightning.backward.graph.edges import Edge, Node, edge_of, nodes_inputs_first
from libragrad_lightning.backward.graph.operations import Operation, Vocabulary

_NOTHING: frozenset[int] = frozenset()


@dataclass(frozen=True)
class RecordedGraph:
    """The nodes behind some outputs that depend on explained tensors.

    Attributes:
        nodes: The nodes, inputs first.
        roots: Those that made the outputs.
        sources: Where the explained tensors are, and their numbers.
    """

    nodes: tuple[Node, ...]
    roots: tuple[Node, ...]
    sources: Mapping[Edge, frozenset[int]]
    _inherited: Mapping[Node | Edge, frozenset[int]] = field(repr=False)

    def depends_on(self, edge: Edge) -> frozenset[int]:
        """Return the numbers of the explained tensors that the value at an edge depends on.

        Paths at which rules stop the gradient count too.
        """
        return _merged([self._at(edge), self.sources.get(edge, _NOTHING)])

    def is_explained(self, edge: Edge) -> bool:
        """Return whether the value at an edge is an explained tensor or depends on one."""
        return edge in self.sources or bool(self._at(edge))

    def dependence(self, node: Node) -> frozenset[int]:
        """Return what the operands of a node depend on."""
        return self._inherited[node]

    def _at(self, edge: Edge) -> frozenset[int]:
        return _at(edge, self._inherited)


def recorded_graph(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], vocabulary: Vocabulary
) -> RecordedGraph:
    """Find what lies between outputs and the explained tensors.

    Args:
        outputs: Tensors with a recorded graph.
        inputs: The explained tensors, leaves or not.
        vocabulary: What nodes compute.

    Raises:
        UnreachableInputError: If the outputs do not depend on one of the inputs.
    """
    recorded = any(tensor.requires_grad for tensor in outputs)
    _check_reached([i for i, x in enumerate(inputs) if not (recorded and x.requires_grad)])
    sources: dict[Edge, frozenset[int]] = {}
    for i, tensor in enumerate(inputs):
        edge = edge_of(tensor)
        sources[edge] = sources.get(edge, _NOTHING) | {i}
    made = [edge_of(tensor) for tensor in outputs]
    roots = tuple(node for node, _ in made)
    ends = _ends(sources)
    order = nodes_inputs_first(roots, ends)
    inherited = _inherited(order, sources, vocabulary, ends)
    graph = RecordedGraph(tuple(n for n in order if inherited[n]), roots, sources, inherited)
    reached = _merged([graph.depends_on(edge) for edge in made])
    _check_reached([i for i in range(len(inputs)) if i not in reached])
    return graph


def _ends(sources: Collection[Edge]) -> frozenset[Node]:
    """Return the nodes behind which nothing depends on the explained tensors.

    Behind the node of one of several there may be others.
    """
    alone = len(sources) == 1
    return frozenset(node for node, _ in sources if alone and len(node._input_metadata) == 1)


def _inherited(
    order: Sequence[Node],
    sources: Mapping[Edge, frozenset[int]],
    vocabulary: Vocabulary,
    ends: Collection[Node],
) -> dict[Node | Edge, frozenset[int]]:
    """Return, for every node, what it depends on through its operands.

    An output that depends on others than its node has an entry of its own.
    """
    found: dict[Node | Edge, frozenset[int]] = {None: _NOTHING}
    for node in order:
        if node in ends:
            found[node] = _NOTHING
            continue
        operands = [
            _merged([_at(edge, found), sources.get(edge, _NOTHING)]) for edge in node.next_functions
        ]
        found[node] = _merged(operands)
        if len(operands) > 1 and is_identity(vocabulary.of(node)):
            found.update(((node, i), operand) for i, operand in enumerate(operands))
    return found


def is_identity(operation: Operation | None) -> bool:
    """Return whether every output of an operation is the operand at its place."""
    return operation is not None and operation.is_identity


def _at(edge: Edge, inherited: Mapping[Node | Edge, frozenset[int]]) -> frozenset[int]:
    found = inherited.get(edge)
    return inherited.get(edge[0], _NOTHING) if found is None else found


def _merged(sets: Sequence[frozenset[int]]) -> frozenset[int]:
    """Return the union, without a copy where one of the sets is all of it."""
    merged = _NOTHING
    for numbers in sets:
        if not numbers <= merged:
            merged = merged | numbers if merged else numbers
    return merged


def _check_reached(missing: list[int]) -> None:
    if missing:
        raise UnreachableInputError(
            f"The outputs do not depend on `inputs` {missing}; explain a tensor that the forward "
            "pass used, with `requires_grad` set before it."
        )
