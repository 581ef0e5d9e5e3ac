"""Reads queries and keys of the last block off a recorded graph.

Fused kernels keep both. Where attention is written out, the product behind its softmax keeps them,
up to factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from libragrad_lightning.backward import AttentionPart, GraphReading, Node, NodeReading, Role
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

    def __call__(self, reading: GraphReading) -> Iterator[RemovableHandle]:
        """Look at all products of query and key; no hook is needed for it."""
        for node in reading.nodes:
            pair = _factors(node)
            if pair is not None:
                self._found[node.node._sequence_nr()] = pair
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


def _factors(reading: NodeReading) -> tuple[Tensor, Tensor] | None:
    """Return query and key of an attention, if a node weighs values by one."""
    operation, node = reading.operation, reading.node
    fused = operation is not None and operation.role is Role.ATTENTION
    if fused and operation is not None and operation.part is AttentionPart.FUSED:
        return node._saved_query, node._saved_key
    if not node.name().startswith("BmmBackward"):
        return None
    softmax = _first_behind(node, ("SoftmaxBackward", "SafeSoftmaxBackward"))
    product = (
        None if softmax is None else _first_behind(softmax, ("BmmBackward", "BaddbmmBackward"))
    )
    if product is None:
        return None
    if product.name().startswith("Baddbmm"):
        return product._saved_batch1, product._saved_batch2.mT
    return product._saved_self, product._saved_mat2.mT


def _first_behind(node: Node, names: tuple[str, ...]) -> Node | None:
    """Return the first node of some names behind the first operand of a node."""
    current = node.next_functions[0][0]
    for _ in range(_STEPS):
        if current is None or current.name().startswith(names):
            return current
        if not current.next_functions:
            return None
        current = current.next_functions[0][0]
    return None
