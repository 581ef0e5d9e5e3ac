"""How a feature tensor is to be read: tokens and the places in the image where they lie.

Everything beyond this file sees token sequences `[B, T, D]`: first the tokens that lie nowhere in
the image, then its patches row by row. A feature map is the sequence of its cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import torch
from torch import Tensor

Features: TypeAlias = Tensor | tuple[Tensor, ...]
"""The features of a level: one tensor, or one of each pass if a model runs its blocks again."""


class Axes(Enum):
    """The order of axes of a feature tensor."""

    TOKENS = "[B, T, D]"
    TOKENS_FIRST = "[T, B, D]"
    TOKENS_LAST = "[B, D, T]"
    CHANNELS_LAST = "[B, h, w, D]"
    CHANNELS_FIRST = "[B, D, h, w]"

    def sequence(self, features: Tensor) -> Tensor:
        """Return a feature tensor as `[B, T, D]` in the order of the model, a view."""
        if self is Axes.CHANNELS_FIRST:
            return features.flatten(2).transpose(1, 2)
        if self is Axes.CHANNELS_LAST:
            return features.flatten(1, 2)
        return self._turned(features)

    def features(self, sequence: Tensor, cells: tuple[int, int]) -> Tensor:
        """Return `[B, T, D]` in these axes; the inverse of `sequence`.

        Args:
            sequence: The tokens.
            cells: Rows and columns of the tensor, if it is a feature map.
        """
        if self is Axes.CHANNELS_FIRST:
            return sequence.transpose(1, 2).unflatten(2, cells)
        if self is Axes.CHANNELS_LAST:
            return sequence.unflatten(1, cells)
        return self._turned(sequence)

    def _turned(self, sequence: Tensor) -> Tensor:
        if self is Axes.TOKENS_FIRST:
            return sequence.transpose(0, 1)
        return sequence.transpose(1, 2) if self is Axes.TOKENS_LAST else sequence

    def cells(self, features: Tensor) -> tuple[int, int]:
        """Return the rows and columns of a feature map; of a sequence, one row."""
        if self is Axes.CHANNELS_FIRST:
            return features.shape[2], features.shape[3]
        if self is Axes.CHANNELS_LAST:
            return features.shape[1], features.shape[2]
        return 1, self._turned(features).shape[1]

    @property
    def is_sequence(self) -> bool:
        """Whether these are the axes of a sequence, which may have tokens that are no patches."""
        return self not in (Axes.CHANNELS_FIRST, Axes.CHANNELS_LAST)


def possible_axes(shape: Sequence[int], batch: int) -> list[Axes]:
    """Return in which axes a tensor may hold several tokens of every image, usual ones first.

    Args:
        shape: The shape of the tensor.
        batch: Number of images.
    """
    axes: list[Axes] = []
    if len(shape) == 3 and shape[0] == batch:
        axes = [Axes.TOKENS, Axes.TOKENS_LAST]
    if len(shape) == 3 and shape[1] == batch:
        axes.append(Axes.TOKENS_FIRST)
    if len(shape) == 4 and shape[0] == batch:
        axes = [Axes.CHANNELS_FIRST, Axes.CHANNELS_LAST]
    like = torch.empty(tuple(shape), device="meta")
    return [a for a in axes if min(a.sequence(like).shape[1:]) > 1]


@dataclass(frozen=True)
class FeatureView:
    """One reading of a feature tensor.

    Attributes:
        axes: The order of its axes.
        grid: Rows and columns of its patches or cells.
        prefix: How many tokens lie nowhere in the image; they are the first ones in this view.
        order: The tokens by their numbers in the model, in the order of this view, int64 `[T]`;
            None if the model has them in the same order.
        cells: Rows and columns of a feature map in the model, if they are not those of the grid.
        middles: Where the middles of the outer rows and columns seem to lie in the image, from 0 to
            1: top, bottom, left, right; None if that was not measured.
    """

    axes: Axes
    grid: tuple[int, int]
    prefix: int = 0
    order: Tensor | None = field(default=None, compare=False)
    cells: tuple[int, int] | None = None
    middles: tuple[float, ...] | None = field(default=None, compare=False)

    @property
    def length(self) -> int:
        """Number of tokens T, prefix included."""
        return self.prefix + self.grid[0] * self.grid[1]

    @property
    def passes(self) -> tuple[FeatureView, ...]:
        """The views of the passes in which a model runs its blocks."""
        return (self,)

    def tokens(self, features: Features) -> Tensor:
        """Return a feature tensor as `[B, T, D]`, a view where possible."""
        sequence = self.axes.sequence(only(features))
        return sequence if self.order is None else sequence[:, self.order.to(sequence.device)]

    def features(self, tokens: Tensor) -> Features:
        """Return `[B, T, D]` in the axes of the feature tensor; the inverse of `tokens`."""
        if self.order is not None:
            tokens = tokens[:, self.order.argsort().to(tokens.device)]
        return self.axes.features(tokens, self.cells or self.grid)

    def selected(self, tokens: Tensor, index: Tensor) -> Features:
        """Return some tokens of each image in the axes and in the order of the model.

        Args:
            tokens: `[B, T, D]`, of sequences.
            index: Which ones, by their numbers in this view, `[B, K]`.
        """
        if self.order is not None:
            places = self.order.to(index.device)[index]
            index = index.gather(1, places.argsort(dim=1))
        rows = torch.arange(len(index), device=index.device)[:, None]
        return self.axes.features(tokens[rows, index], (1, index.shape[1]))

    def patches_in_model(self, patches: Tensor, others: Tensor) -> Tensor:
        """Return by their numbers among the patches of the model, and in its order, some patches.

        Args:
            patches: Patches by their numbers in the grid, `[B, K]`, which tell the order.
            others: The patches that stand in their places, `[B, K]`.
        """
        if self.order is None:
            return others
        numbers = self.order[self.prefix :].argsort().argsort().to(others.device)
        return numbers[others.gather(1, numbers[patches].argsort(dim=1))]

    def on_grid(self, values: Tensor) -> Tensor:
        """Return values `[B, T]` as a map over patches `[B, h, w]`, without prefix tokens."""
        return values[:, self.prefix :].unflatten(1, self.grid)

    def kept(self, patches: Tensor) -> Tensor:
        """Return which tokens `[B, T]` are kept if only some patches `[B, h * w]` are."""
        return torch.nn.functional.pad(patches, (self.prefix, 0), value=True)

    def moved(self, values: Tensor, to: View) -> Tensor:
        """Move values `[B, T]` to the patches of another view of the same images, `[B, T']`.

        Every cell's value is spread over the area that it covers, so that sums stay what they are.
        Values of prefix tokens stay only if the other view has the same number of them.
        """
        assert isinstance(to, FeatureView)
        if to.prefix != self.prefix:
            values = torch.cat(
                [values.new_zeros(len(values), to.prefix), values[:, self.prefix :]], 1
            )
        if to.grid == self.grid:
            return values
        patches = values[:, to.prefix :].unflatten(1, self.grid)
        rows, columns = (overlap(n, m).to(values) for n, m in zip(self.grid, to.grid, strict=True))
        moved = torch.einsum("ri,bij,cj->brc", rows, patches, columns)
        return torch.cat([values[:, : to.prefix], moved.flatten(1)], dim=1)


@dataclass(frozen=True)
class JoinedView:
    """One reading of the feature tensors of several passes over the same images.

    Its tokens are those of the first pass, then those of the next. They lie in one grid: a patch
    has as many tokens as there are passes.

    Attributes:
        passes: The views of the passes.
    """

    passes: tuple[FeatureView, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        return self.passes[0].grid

    @property
    def prefix(self) -> int:
        """How many tokens lie nowhere in the image, in all passes together."""
        return sum(view.prefix for view in self.passes)

    @property
    def length(self) -> int:
        """Number of tokens of all passes."""
        return sum(view.length for view in self.passes)

    def tokens(self, features: Features) -> Tensor:
        """Return the feature tensors of all passes as `[B, T, D]`."""
        pairs = zip(self.passes, features, strict=True)
        return torch.cat([view.tokens(part) for view, part in pairs], dim=1)

    def features(self, tokens: Tensor) -> Features:
        """Return `[B, T, D]` in the axes of the feature tensors; the inverse of `tokens`."""
        pairs = zip(self.passes, self._apart(tokens), strict=True)
        return tuple(only(view.features(part)) for view, part in pairs)

    def on_grid(self, values: Tensor) -> Tensor:
        """Return values `[B, T]` as a map over patches `[B, h, w]`: the sum over all passes."""
        pairs = zip(self.passes, self._apart(values), strict=True)
        return torch.stack([view.on_grid(part) for view, part in pairs]).sum(0)

    def kept(self, patches: Tensor) -> Tensor:
        """Return which tokens `[B, T]` are kept if only some patches `[B, h * w]` are."""
        return torch.cat([view.kept(patches) for view in self.passes], dim=1)

    def moved(self, values: Tensor, to: View) -> Tensor:
        """Move values `[B, T]` to the patches of another view of the same images, `[B, T']`."""
        passes = zip(self.passes, self._apart(values), to.passes, strict=True)
        return torch.cat([view.moved(part, other) for view, part, other in passes], dim=1)

    def _apart(self, tokens: Tensor) -> Sequence[Tensor]:
        parts: Sequence[Tensor] = tokens.split([view.length for view in self.passes], dim=1)
        return parts


View: TypeAlias = FeatureView | JoinedView
"""How to read the features of a level."""


def prefix_of(view: View, values: Tensor) -> Tensor:
    """Return the values `[B, P]` of the tokens that lie nowhere, of values `[B, T]`."""
    starts = [0]
    for part in view.passes[:-1]:
        starts.append(starts[-1] + part.length)
    pairs = zip(starts, view.passes, strict=True)
    return torch.cat([values[:, s : s + part.prefix] for s, part in pairs], dim=1)


def parts_of(features: Features) -> tuple[Tensor, ...]:
    """Return the tensors of the features of a level, one for each pass."""
    return features if isinstance(features, tuple) else (features,)


def joined_features(parts: Sequence[Tensor]) -> Features:
    """Return the features of a level of one tensor for each pass."""
    return parts[0] if len(parts) == 1 else tuple(parts)


def joined_view(passes: Sequence[FeatureView]) -> View:
    """Return the view of a level of those of its passes."""
    return passes[0] if len(passes) == 1 else JoinedView(tuple(passes))


def only(features: Features) -> Tensor:
    """Return the one tensor of features of one pass."""
    (tensor,) = parts_of(features)
    return tensor


def overlap(cells: int, others: int) -> Tensor:
    """Return `[others, cells]`: which share of each of n equal cells lies in each of m others."""
    edges = torch.arange(cells + 1, dtype=torch.float64) / cells
    other = torch.arange(others + 1, dtype=torch.float64) / others
    upper = torch.minimum(edges[None, 1:], other[1:, None])
    lower = torch.maximum(edges[None, :-1], other[:-1, None])
    return (upper - lower).clamp_min(0) * cells
