"""Reads queries and keys of the last block off a recorded graph.

Fused kernels keep both. In eager attention the product behind the softmax keeps them, up to
factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from libragrad_lightning.backward import FusedAttention, MatrixProduct, Node, Operation, Vocabulary
from libragrad_lightning.backward.graph import AnnotatedGraph, AnnotatedNode, Edge, Function
from libragrad_lightning.models import View

_STEPS = 8
"""How many rearrangements, factors and masks may lie between products and a softmax."""


@dataclass(frozen=True)
class QueriesAndKeys:
    """Query and key of a self-attention, `[B, heads, T, d]` each, up to factors."""

    queries: Tensor
    keys: Tensor


@dataclass
class QueryWatch:
    """Keeps query and key of the last self-attention over all tokens.

    Pass it in the `watch` argument of `libragrad_lightning.backward.grad`.

    Attributes:
        batch: Number of images.
        views: How the tokens of every level lie in the image.
    """

    batch: int
    views: Sequence[View]
    _found: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __call__(self, graph: AnnotatedGraph) -> Iterator[RemovableHandle]:
        """Look at all products of query and key; no hook is needed for it."""
        for annotated in graph.nodes:
            pair = _factors(annotated, graph.vocabulary)
            if pair is not None:
                self._found[annotated.node._sequence_nr()] = pair
        yield from ()

    def of_last(self) -> QueriesAndKeys | None:
        """Return query and key of the last block, tokens in the order of its view, or None."""
        view = self.views[-1].passes[-1]
        for _, pair in sorted(self._found.items(), key=lambda item: -item[0]):
            shapes = {tuple(t.shape[-2:]) for t in pair}
            whole = len(shapes) == 1 and pair[0].shape[-2] == view.length
            if whole and all(t.shape[0] % self.batch == 0 for t in pair):
                by_image = [t.reshape(self.batch, -1, *t.shape[-2:]).detach() for t in pair]
                if view.order is not None:
                    order = view.order.to(pair[0].device)
                    by_image = [t[:, :, order] for t in by_image]
                return QueriesAndKeys(*by_image)
        return None


def _factors(annotated: AnnotatedNode, vocabulary: Vocabulary) -> tuple[Tensor, Tensor] | None:
    """Return query and key of an attention, if a node weighs values by one."""
    node = annotated.node
    if isinstance(annotated.operation, FusedAttention):
        return node._saved_query, node._saved_key
    product = vocabulary.of(node)
    if not isinstance(product, MatrixProduct) or not product.batched:
        return None
    weights = node.next_functions[product.factors[0]]
    softmax = _first_behind(weights, vocabulary, _is_softmax)
    if softmax is None:
        return None
    scores = _first_behind(softmax.next_functions[0], vocabulary, _is_batched)
    operation = None if scores is None else vocabulary.of(scores)
    if not isinstance(operation, MatrixProduct) or operation.saved_factors is None:
        return None
    queries, keys = operation.saved_factors(scores)
    return queries, keys.mT


def _is_batched(operation: Operation | None) -> bool:
    return isinstance(operation, MatrixProduct) and operation.batched


def _is_softmax(operation: Operation | None) -> bool:
    return operation is not None and operation.function is Function.SOFTMAX


def _first_behind(
    edge: Edge, vocabulary: Vocabulary, fits: Callable[[Operation | None], bool]
) -> Node | None:
    """Return the first node at an edge, and behind first operands from there, that fits."""
    current = edge[0]
    for _ in range(_STEPS):
        if current is None or fits(vocabulary.of(current)):
            return current
        if not current.next_functions:
            return None
        current = current.next_functions[0][0]
    return None
