"""Where the patches of a map lie in its image.

They need not divide it evenly: where its sides are no multiples of the patch, borders are cropped,
or padded, and a model reads less than the image, or more. All that brings a map to pixels asks one
`Placement`: heatmaps, scores beside masks, panels, and what replaces pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """Where the patches lie along one side of an image; all in shares of the side.

    Attributes:
        first: Where the first patch begins; below 0 where it reaches into padding.
        last: Where the last one ends; above 1 where it reaches into padding.
        read_from: Where the part of the image begins that is read.
        read_to: Where it ends.
    """

    first: float = 0.0
    last: float = 1.0
    read_from: float = 0.0
    read_to: float = 1.0

    def coordinates(self, length: int) -> Tensor:
        """Return where the middles of pixels lie among the patches, from 0 to 1 `[length]`.

        NaN where nothing is read.
        """
        middles = (torch.arange(length, dtype=torch.float64) + 0.5) / length
        read = (middles > self.read_from) & (middles < self.read_to)
        places = (middles - self.first) / (self.last - self.first)
        return places.masked_fill(~read, float("nan"))

    def patches(self, count: int, length: int) -> Tensor:
        """Return which of some patches pixels belong to, `[length]`; -1 where nothing is read."""
        places = self.coordinates(length)
        numbers = (places * count).floor().clamp(0, count - 1)
        return numbers.nan_to_num(-1.0).long()

    def bicubic_weights(self, count: int, length: int) -> Tensor:
        """Return how much of some patches pixels take, `[length, count]` in float64.

        Bicubic between the middles of patches, by torch's own kernel; 0 where nothing is read.
        """
        places = self.coordinates(length)
        grid = torch.stack([torch.zeros_like(places), 2 * places.nan_to_num(0.5) - 1], dim=-1)
        found = F.grid_sample(
            torch.eye(count, dtype=torch.float64)[:, None, :, None],
            grid[None, :, None].expand(count, -1, -1, -1),
            mode="bicubic",
            padding_mode="border",
            align_corners=False,
        )
        return found[:, 0, :, 0].T.masked_fill(places.isnan()[:, None], 0.0)


@dataclass(frozen=True)
class Placement:
    """Where the patches of a map lie in its image; by default they divide it evenly.

    Attributes:
        rows: Where they lie from top to bottom.
        columns: Where they lie from left to right.
    """

    rows: Span = Span()
    columns: Span = Span()

    def on_pixels(self, values: Tensor, size: tuple[int, int], elsewhere: float) -> Tensor:
        """Return for every pixel the value of its patch.

        Args:
            values: One for each patch `[..., h, w]`.
            size: Height and width of the image in pixels.
            elsewhere: The value of pixels that no patch reads.

        Returns:
            `[..., H, W]`.
        """
        rows = self.rows.patches(values.shape[-2], size[0]).to(values.device)
        columns = self.columns.patches(values.shape[-1], size[1]).to(values.device)
        nowhere = (rows < 0)[:, None] | (columns < 0)
        found = values[..., rows.clamp_min(0), :][..., columns.clamp_min(0)]
        return found.masked_fill(nowhere, elsewhere)

    def upsampled(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Return maps at the size of the image, bicubic between the middles of patches.

        Args:
            maps: `[B, h, w]`, floating point.
            size: Height and width in pixels.

        Returns:
            `[B, H, W]` of the same type; 0 at pixels that no patch reads; NaN throughout where a
            value of the map is not finite.
        """
        wide = torch.float32 if maps.device.type == "mps" else torch.float64
        rows = self.rows.bicubic_weights(maps.shape[-2], size[0]).to(maps.device, wide)
        columns = self.columns.bicubic_weights(maps.shape[-1], size[1]).to(maps.device, wide)
        return (rows @ maps.to(wide) @ columns.T).to(maps.dtype)
