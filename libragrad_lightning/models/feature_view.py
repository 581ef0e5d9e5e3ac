"""How the axes of a feature tensor are to be read: tokens, or the cells of a feature map.

Everything beyond this file sees token sequences `[B, T, D]`: a feature map is the sequence of its
cells, row by row, without prefix tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

_MOST_PREFIX_TOKENS = 16


class Axes(Enum):
    """The order of axes of a feature tensor."""

    TOKENS = "[B, T, D]"
    CHANNELS_LAST = "[B, h, w, D]"
    CHANNELS_FIRST = "[B, D, h, w]"


@dataclass(frozen=True)
class FeatureView:
    """One reading of a feature tensor.

    Attributes:
        axes: The order of its axes.
        grid: Rows and columns of its patches or cells.
        prefix: How many leading tokens are not patches; 0 for feature maps.
        order: Where in the sequence the patches are, row by row, if the model has them in another
            order, int64 `[rows * columns]`; only without prefix tokens.
    """

    axes: Axes
    grid: tuple[int, int]
    prefix: int = 0
    order: Tensor | None = field(default=None, compare=False)

    @property
    def length(self) -> int:
        """Number of tokens T, prefix included."""
        return self.prefix + self.grid[0] * self.grid[1]

    def tokens(self, features: Tensor) -> Tensor:
        """Return a feature tensor as `[B, T, D]`, a view where possible."""
        if self.axes is Axes.CHANNELS_FIRST:
            return features.flatten(2).transpose(1, 2)
        if self.axes is Axes.CHANNELS_LAST:
            return features.flatten(1, 2)
        return features if self.order is None else features[:, self.order]

    def features(self, tokens: Tensor) -> Tensor:
        """Return `[B, T, D]` in the axes of the feature tensor; the inverse of `tokens`."""
        if self.axes is Axes.CHANNELS_FIRST:
            return tokens.transpose(1, 2).unflatten(2, self.grid)
        if self.axes is Axes.CHANNELS_LAST:
            return tokens.unflatten(1, self.grid)
        return tokens if self.order is None else tokens[:, self.order.argsort()]

    def moved(self, values: Tensor, to: FeatureView) -> Tensor:
        """Move values `[B, T]` to the patches of another view of the same images, `[B, T']`.

        Every cell's value is spread over the area that it covers, so that sums stay what they are.
        Values of prefix tokens stay only if the other view has the same number of them.
        """
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


def overlap(cells: int, others: int) -> Tensor:
    """Return `[others, cells]`: which share of each of n equal cells lies in each of m others."""
    edges = torch.arange(cells + 1, dtype=torch.float64) / cells
    other = torch.arange(others + 1, dtype=torch.float64) / others
    upper = torch.minimum(edges[None, 1:], other[1:, None])
    lower = torch.maximum(edges[None, :-1], other[:-1, None])
    return (upper - lower).clamp_min(0) * cells


def feature_view(
    shape: Sequence[int], image_size: tuple[int, int], prefix: int | None = None
) -> FeatureView | None:
    """Read the axes of a feature tensor, or return None if it is not spatial.

    The grid has the aspect ratio of the image, up to one row or column; a single cell is no grid.

    Args:
        shape: The shape of the tensor, batch first.
        image_size: Height and width of the images.
        prefix: The number of prefix tokens; inferred from the length by default.
    """
    if len(shape) == 4:
        return _map_view(tuple(shape[1:]), image_size)
    if len(shape) != 3:
        return None
    for count in range(_MOST_PREFIX_TOKENS + 1) if prefix is None else (prefix,):
        grid = patch_grid(shape[1] - count, image_size)
        if grid is not None:
            return FeatureView(Axes.TOKENS, grid, count)
    return None


def patch_grid(patches: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Return rows and columns of a number of patches with the aspect ratio of the image."""
    height, width = image_size
    rows = round(math.sqrt(max(patches, 0) * height / width))
    if patches < 2 or rows == 0 or patches % rows:
        return None
    grid = (rows, patches // rows)
    return grid if _distortion(grid, image_size) <= max(image_size) * (height != width) else None


def _map_view(axes: tuple[int, ...], image_size: tuple[int, int]) -> FeatureView | None:
    first, last = (axes[1], axes[2]), (axes[0], axes[1])
    to_first, to_last = _distortion(first, image_size), _distortion(last, image_size)
    if to_first <= to_last:
        view, distortion = FeatureView(Axes.CHANNELS_FIRST, first), to_first
    else:
        view, distortion = FeatureView(Axes.CHANNELS_LAST, last), to_last
    return view if distortion <= max(image_size) and view.length > 1 else None


def _distortion(grid: tuple[int, int], image_size: tuple[int, int]) -> int:
    """Zero if the grid has the image's aspect ratio; the longer side for about a row too many."""
    return abs(grid[0] * image_size[1] - grid[1] * image_size[0])
