"""The pixels of a mask in the order of a map, from which precision and recall are read off.

Only thresholds at which a pixel of the mask is found change the recall, and only there can F1 be
largest. So it is enough to know, for each pixel of the mask in the order of falling attribution,
how many pixels stand at or above it. One sort of integer keys gives that: the key holds the rank
of the value and, in its lowest bit, whether the pixel belongs to the mask, so that no index has to
be moved along. Pixels of the mask come last among equals: the last of them then closes its group
of ties, and its place is the number of pixels at or above the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from libragrad_lightning.metrics.functional.precision import accumulation_dtype
from libragrad_lightning.metrics.functional.sorting import (
    dense_ranks,
    indices_of_true,
    sort_values,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from libragrad_lightning.metrics.functional.maps import MaskedMaps

PIXELS_IN_CACHE = 2**17


@dataclass(frozen=True)
class Thresholds:
    """All thresholds at which pixels of a mask are found, T of them over all masks.

    Attributes:
        per_mask: Thresholds of each mask [R], int64, which follow each other.
        hits: Pixels of the mask at or above the threshold [T].
        new_hits: Those among them that are below the threshold before [T].
        seen: Pixels at or above the threshold [T].
        positives: Pixels of each mask [R].
        shape: Shape of the masks (B, M), where R = B * M.
    """

    per_mask: Tensor
    hits: Tensor
    new_hits: Tensor
    seen: Tensor
    positives: Tensor
    shape: tuple[int, int]

    def reduce(self, values: Tensor, how: Literal["sum", "max"]) -> Tensor:
        """Return the sum or the maximum of values [T] >= 0 for each mask: [B, M]."""
        reduced = torch.segment_reduce(values, how, lengths=self.per_mask, initial=0.0)
        return reduced.view(self.shape)


def measured(maps: MaskedMaps, measure: Callable[[Thresholds], Tensor]) -> Tensor:
    """Measure maps in blocks that fit into the processor's cache.

    Args:
        maps: Maps and masks.
        measure: Takes the thresholds of a block to a value per mask [B', M].

    Returns:
        Values [B, M]; some number where a map is not finite.
    """
    in_blocks = maps.attribution.device.type == "cpu"
    images = PIXELS_IN_CACHE // maps.positive[0].numel() if in_blocks else len(maps.attribution)
    return torch.cat([measure(thresholds(block)) for block in maps.split(max(images, 1))])


def thresholds(maps: MaskedMaps) -> Thresholds:
    """Return the thresholds at which the pixels of each mask are found.

    Args:
        maps: Maps and masks. Values that are not finite are ranked anywhere.
    """
    keys = _descending_keys(maps.attribution)[:, None] + maps.positive
    if not maps.all_count:
        keys = keys.masked_fill_(~maps.counted, torch.iinfo(keys.dtype).max - 1)
    keys = sort_values(keys.flatten(0, 1))
    return _thresholds(keys, (maps.positive.shape[0], maps.positive.shape[1]))


def _thresholds(keys: Tensor, shape: tuple[int, int]) -> Thresholds:
    """Read the thresholds off sorted keys [R, P]."""
    pixels = keys.shape[1]
    is_positive = (keys & 1).bool()
    keys, place = keys.flatten(), indices_of_true(is_positive.flatten())
    start = torch.arange(0, len(keys) + 1, pixels, device=keys.device)
    # Places rise, so that looking up where rows begin counts them; a sum of bytes is slower.
    positives = torch.searchsorted(place, start).diff()
    start = start[:-1]
    column = place - start.repeat_interleave(positives)
    following = keys.index_select(0, (place + 1).clamp_(max=len(keys) - 1))
    is_closing = (following != keys.index_select(0, place)) | (column == pixels - 1)
    per_mask, closes = positives, indices_of_true(is_closing)
    if len(closes) < len(place):
        column = column.index_select(0, closes)
        found = F.pad(is_closing.cumsum(dim=0), (1, 0))
        per_mask = found[positives.cumsum(dim=0)].diff(prepend=found[:1])
    hits = closes + 1 - (positives.cumsum(dim=0) - positives).repeat_interleave(per_mask)
    # The last pixel of a mask always closes a group, so that a difference never spans two masks.
    new_hits = closes.diff(prepend=closes.new_full((1,), -1))
    dtype = accumulation_dtype(keys.device)
    return Thresholds(
        per_mask, hits.to(dtype), new_hits.to(dtype), (column + 1).to(dtype), positives, shape
    )


def _descending_keys(values: Tensor) -> Tensor:
    """Return even integers [B, P] that fall as the values rise, int32 if that is wide enough."""
    if values.dtype is torch.float64:
        return dense_ranks(values.nan_to_num()).mul_(-2).int()
    # The bits of non-negative floats rise with their values; those of negative ones fall.
    bits = (values.float() + 0.0).view(torch.int32)
    bits = bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))
    low, high = bits.aminmax()
    # The bits of numbers between -2 and 2 leave room for one more.
    narrow = max(-int(low), int(high)) < 2**30 - 1
    return (bits if narrow else bits.long()).mul_(-2)
