"""Collects the attention matrices of every level while gradients are computed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from libragrad_lightning.backward import LibraGradError
from libragrad_lightning.backward.attention_watch import AttentionSite
from libragrad_lightning.models import View


@dataclass(frozen=True)
class Attention:
    """The self-attention of one level.

    Attributes:
        weights: A `[B, heads, T, T]`, rows are queries.
        gradients: dF/dA `[B, heads, T, T]`, in the corrected graph.
    """

    weights: Tensor
    gradients: Tensor

    def keys_ordered(self, order: Tensor | None) -> Attention:
        """Return the attention with its keys in an order, int64 `[T]`; None keeps it."""
        if order is None:
            return self
        keys = order.to(self.weights.device)
        return Attention(self.weights[..., keys], self.gradients[..., keys])

    def ordered(self, order: Tensor | None) -> Attention:
        """Return the attention with queries and keys in an order, int64 `[T]`; None keeps it."""
        if order is None:
            return self
        columns = order.to(self.weights.device)
        rows = columns[:, None]
        return Attention(self.weights[..., rows, columns], self.gradients[..., rows, columns])


@dataclass
class AttentionLedger:
    """Keeps the attention over the explained tokens, by level.

    Call it as the sink of `libragrad_lightning.backward.attention_watch.AttentionWatch`.

    Attributes:
        batch: Number of images.
        views: How the tokens of every level lie in the image.
    """

    batch: int
    views: Sequence[View]
    _found: dict[int, list[tuple[int, Attention]]] = field(default_factory=dict, repr=False)

    def __call__(self, site: AttentionSite, weights: Tensor, gradients: Tensor) -> None:
        """Add the attention of one site, unless it is not over all tokens (pooling, windows)."""
        level, number = divmod(max(site.depends_on), len(self.views[0].passes))
        tokens = self.views[level].passes[number].length
        if weights.shape[-2:] != (tokens, tokens) or weights.shape[0] % self.batch:
            return
        shape = (self.batch, -1, tokens, tokens)
        attention = Attention(weights.reshape(shape).detach(), gradients.reshape(shape).detach())
        self._found.setdefault(level, []).append((site.sequence, attention))

    def by_level(self, disordered: Collection[int] = ()) -> Sequence[Attention]:
        """Return one attention for each level, its tokens in the order of the view.

        Args:
            disordered: Levels in whose blocks tokens stand in another order.

        Raises:
            LibraGradError: If a level has none, or several, or one over tokens in another order.
        """
        levels = range(len(self.views))
        counts = [len(self._found.get(level, [])) for level in levels]
        if set(counts) != {1}:
            raise LibraGradError(
                f"This method needs one self-attention over all tokens in every "
                f"block, but the blocks have {counts}; choose a `method` without attention, such "
                "as 'fullgrad_plus'."
            )
        if disordered:
            raise LibraGradError(
                f"In {len(disordered)} blocks tokens stand in another order than between blocks, "
                "so that it is not known between which of them attention is; choose a `method` "
                "without attention, such as 'fullgrad_plus'."
            )
        orders = [view.passes[0].order for view in self.views]
        return [self._found[level][0][1].ordered(orders[level]) for level in levels]


@dataclass
class PoolingLedger:
    """Keeps the attention of a few queries to all tokens, as that of an attention pool.

    Call it as the sink of `libragrad_lightning.backward.attention_watch.AttentionWatch`.

    Attributes:
        batch: Number of images.
        view: How the tokens lie in the image.
        found: The attention, `[B, heads, queries, T]`.
    """

    batch: int
    view: View
    found: list[Attention] = field(default_factory=list)

    def __call__(self, site: AttentionSite, weights: Tensor, gradients: Tensor) -> None:
        """Add the attention of one site, if its keys are the tokens and its queries are not."""
        queries, keys = weights.shape[-2:]
        if queries == keys or keys != self.view.length or weights.shape[0] % self.batch:
            return
        shape = (self.batch, -1, queries, keys)
        attention = Attention(weights.reshape(shape).detach(), gradients.reshape(shape).detach())
        self.found.append(attention.keys_ordered(self.view.passes[0].order))
