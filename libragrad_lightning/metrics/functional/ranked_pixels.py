"""The pixels of a mask in the order of a map, from which precision and recall are read off.

One sort of integer keys gives the order: the key holds the rank of the value and, in its lowest
bit, whether the pixel belongs to the mask, so that no index has to be moved along. Equal values
share a threshold, which is where the last of them stands.

The metrics of scikit-learn and torchmetrics take one map at a time, and none of them both on the
device and with thresholds at equal values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from libragrad_lightning.metrics.functional.precision import accumulation_dtype
from libragrad_lightning.metrics.functional.sorting import dense_ranks, sort_values

if TYPE_CHECKING:
    from torch import Tensor

    from libragrad_lightning.metrics.functional.maps import MaskedMaps


@dataclass(frozen=True)
class Thresholds:
    """What is at or above every pixel, in the order of falling attribution; all `[B, M, P]`.

    Attributes:
        hits: Pixels of the mask at or above it.
        seen: Pixels at or above it.
        closes: Whether it is the last of those with its value, so that a threshold lies there.
    """

    hits: Tensor
    seen: Tensor
    closes: Tensor

    @property
    def positives(self) -> Tensor:
        """Pixels of each mask [B, M, 1]."""
        return self.hits[..., -1:]

    @property
    def new_hits(self) -> Tensor:
        """Pixels of the mask at a threshold that are below the threshold before [B, M, P]."""
        before = (self.hits * self.closes).cummax(dim=-1).values[..., :-1]
        return (self.hits - F.pad(before, (1, 0))) * self.closes


def thresholds(maps: MaskedMaps) -> Thresholds:
    """Return the thresholds at which the pixels of each mask are found.

    Args:
        maps: Maps and masks. Values that are not finite are ranked anywhere.
    """
    keys = _descending_keys(maps.attribution)[:, None] + maps.positive
    last = torch.iinfo(keys.dtype).max - 1
    keys = sort_values(keys if maps.all_count else keys.masked_fill_(~maps.counted, last))
    ranks = keys >> 1
    closes = F.pad(ranks[..., 1:] != ranks[..., :-1], (0, 1), value=True)
    dtype = accumulation_dtype(keys.device)
    seen = torch.arange(1, keys.shape[-1] + 1, dtype=dtype, device=keys.device)
    return Thresholds((keys & 1).cumsum(dim=-1, dtype=dtype), seen, closes & (keys != last))


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
