"""Computes the values of constants that autograd recorded as operations on parameters.

Autograd keeps no values of sums or concatenations, but it knows their transpose J': the value J v
of a linear operation on v is the gradient of <v, J' u> with respect to u. Every other operation is
linear too once the rules of LibraGrad hold its gates constant: the gradients of `LIBRA` are
complete (Mehri et al. 2025, Cor 3), so that J v under these rules, plus what the operation adds, is
its value again. An operation that the table does not know is reported, never guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from libragrad_lightning.backward.biases.observer import is_noted, observed_constant
from libragrad_lightning.backward.errors import UnknownConstantError
from libragrad_lightning.backward.graph import (
    Correction,
    Edge,
    Flow,
    Node,
    Operation,
    Role,
    Vocabulary,
    handed_on,
    is_leaf_node,
    nodes_inputs_first,
)
from libragrad_lightning.backward.rule_sets import LIBRA

_EXACT = (Role.ATTENTION, Role.ACTIVATION, Role.LINEAR)
"""Roles whose value is taken as saved: it is exact, and some kernels (fused attention, distances)
cannot be differentiated twice."""


@dataclass
class ConstantValues:
    """The values behind the constant edges of one graph; each is computed once.

    Attributes:
        vocabulary: What nodes compute, by their names.
    """

    vocabulary: Vocabulary
    _values: dict[Edge, Tensor] = field(default_factory=dict, repr=False)

    def at(self, edge: Edge) -> Tensor:
        """Return the value that enters at an edge.

        Raises:
            UnknownConstantError: If it is computed by an operation whose value cannot be found.
        """
        if edge not in self._values:
            order = nodes_inputs_first([edge[0]])
            for needed in [*_edges_of(order), edge]:
                if needed not in self._values:
                    self._values[needed] = self._value(needed)
        return self._values[edge]

    def image(self, node: Node, operation: Operation, edges: Collection[int]) -> Tensor | None:
        """Return what the constants at some edges of a node add to its (first) output.

        The result has the shape of the output. It is None if the operation holds them constant.
        """
        flows = _live_at(node, edges)
        return self._image((node, 0), LIBRA.correct(operation, node, flows), edges)

    def _value(self, edge: Edge) -> Tensor:
        node, number = edge
        if is_leaf_node(node):
            return _leaf(node.variable)
        operation = self.vocabulary.of(node)
        if operation is None or not (operation.applies is None or operation.applies(node)):
            raise _unknown(node)
        if operation.is_identity:  # Calling it may do what it was recorded for.
            return self.at(node.next_functions[number])
        if operation.role in _EXACT and operation.value is not None and not number:
            return operation.value(node).detach()
        with torch.no_grad():
            parts = [self._of_operands(edge, operation), *_additions(node, operation)]
        return torch.stack(torch.broadcast_tensors(*parts)).sum(0)

    def _of_operands(self, edge: Edge, operation: Operation) -> Tensor:
        node, number = edge
        edges = [i for i, (child, _) in enumerate(node.next_functions) if child is not None]
        correction = LIBRA.correct(operation, node, _live_at(node, edges))
        value = None
        if number not in correction.dead_outputs:
            value = self._image(edge, correction, edges)
        if value is None:
            if operation.value is None or number:
                raise _unknown(node)
            value = operation.value(node).detach()
        return value

    def _image(self, edge: Edge, correction: Correction, edges: Collection[int]) -> Tensor | None:
        node, number = edge
        edges = [i for i in edges if correction.weights[i]]
        if not edges:
            return None
        metadata = node._input_metadata
        u = torch.zeros(
            metadata[number].shape, dtype=metadata[number].dtype, device=metadata[number].device
        ).requires_grad_()
        received = tuple(u if i == number else None for i in range(len(metadata)))
        values = {i: self.at(node.next_functions[i]) for i in edges}
        with torch.enable_grad():
            handed = correction.hook(node)(handed_on(node, received), received)
            return _gradient_at(u, [(handed[i], v) for i, v in values.items()])


def _gradient_at(u: Tensor, pairs: Iterable[tuple[Tensor | None, Tensor]]) -> Tensor:
    """Return sum J v, from pairs of J' u and v; where u has no influence J' u is constant."""
    found = [(t, v) for t, v in pairs if t is not None and t.requires_grad]
    if not found:
        return torch.zeros_like(u)
    # Nodes leave it to autograd to sum over axes that were broadcast.
    cotangents = [v.to(t.dtype).expand_as(t) for t, v in found]
    (image,) = torch.autograd.grad([t for t, _ in found], u, cotangents)
    return image


def _additions(node: Node, operation: Operation) -> list[Tensor]:
    """Return what an operation adds besides its operands."""
    found: list[Tensor] = []
    if operation.additive is not None:
        addition = operation.additive(node, lambda edge: None)
        found += [] if addition is None else [addition]
    if is_noted(node, operation):
        found.append(observed_constant(node))
    return [addition.detach() for addition in found]


def _live_at(node: Node, edges: Collection[int]) -> list[Flow]:
    count = len(node.next_functions)
    return [Flow.LIVE if i in edges else Flow.CONSTANT for i in range(count)]


def _edges_of(nodes: Iterable[Node]) -> Iterable[Edge]:
    return (e for node in nodes for e in node.next_functions if e[0] is not None)


def _leaf(variable: Tensor) -> Tensor:
    """Return the value of a leaf, unless its memory has been freed.

    FSDP2 frees weights after a forward pass; reading them would end the process.
    """
    plain = type(variable) in (Tensor, nn.Parameter) and variable.layout is torch.strided
    if plain and variable.numel() and not variable.untyped_storage().nbytes():
        raise UnknownConstantError(
            f"A weight {tuple(variable.shape)} that the graph has recorded was freed after the "
            "forward pass, as FSDP does; run it, and compute gradients, inside of "
            "`libragrad_lightning.models.gathered_weights(model)`."
        )
    return variable.detach()


def _unknown(node: Node) -> UnknownConstantError:
    return UnknownConstantError(
        f"A bias is computed from parameters by {node.name()}, whose value is not known; give it a "
        "role with `rules.vocabulary.extended({name: operation})`, such as `Linear()`, or compute "
        "it without gradients inside of a `ConstantObserver`."
    )
