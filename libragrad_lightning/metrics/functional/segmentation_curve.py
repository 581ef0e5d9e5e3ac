"""Precision at given recalls: the curve whose area is the average precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from libragrad_lightning.metrics.functional.checks import check_fractions
from libragrad_lightning.metrics.functional.maps import read_masked_maps
from libragrad_lightning.metrics.functional.ranked_pixels import thresholds
from libragrad_lightning.metrics.functional.ranked_positives import by_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from libragrad_lightning.metrics.functional.maps import MaskedMaps
    from libragrad_lightning.metrics.functional.ranked_pixels import Thresholds

_ROUNDING = 1e-4
"""Less than one pixel of any mask: a recall of 0.15 asks for three of twenty pixels, not four."""


def segmentation_precision(
    attribution: Tensor, mask: Tensor, recalls: Sequence[float], ignore: Tensor | None = None
) -> Tensor:
    """Return the precision of each map at given recalls of the pixels in its mask.

    At recall r it is that of the pixels at or above the highest threshold at which at least the
    share r of the mask is found, and not less than a pixel of it. This is the curve of
    ``segmentation_average_precision``: the mean over all recalls is the average precision.

    Args:
        attribution: Signed maps [B, H, W], any floating point type; larger means more relevant.
        mask: Pixels of the object [B, H, W], or of M objects per image [B, M, H, W]; boolean.
        recalls: S rising recalls in [0, 1].
        ignore: Pixels to leave out, whether inside or outside the mask: [B, H, W] or shaped like
            ``mask``, boolean. All pixels count by default.

    Returns:
        Precision in [0, 1], [B, S] or [B, M, S], float64 (float32 on devices without float64); NaN
        for a mask without a pixel that counts and for a map with a non-finite value on a pixel
        that counts.

    Raises:
        ValueError: If a shape or a type is wrong, or the recalls are not two or more rising numbers
            in [0, 1].

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import segmentation_precision
        >>> attribution = torch.tensor([[[0.9, 0.1], [0.8, -0.3]]])
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> segmentation_precision(attribution, mask, [0.25, 0.75]).float()
        tensor([[1.0000, 0.6667]])
    """
    return precision_and_average(attribution, mask, ignore, check_fractions(recalls))[1]


def precision_and_average(
    attribution: Tensor, mask: Tensor, ignore: Tensor | None, recalls: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return the average precision and the precision at recalls from one sort of the pixels.

    Args:
        attribution: As for `segmentation_precision`.
        mask: As for `segmentation_precision`.
        ignore: As for `segmentation_precision`.
        recalls: S rising recalls in [0, 1].

    Returns:
        Average precision [B] or [B, M], and precision [B, S] or [B, M, S].
    """
    maps = read_masked_maps(attribution, mask, ignore)
    if attribution.device.type == "cpu":
        missed = 1 - np.asarray(recalls)

        def both(hits: NDArray[np.float64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
            precision = hits / seen
            # Pixels of the mask come from the last that is found to the first.
            place = (len(hits) * missed + _ROUNDING).astype(np.int64)
            nth = precision.take(np.minimum(place, len(hits) - 1))
            return np.concatenate(([precision.mean()], nth))

        found = maps.valid(by_mask(maps, both, (1 + len(missed),)))
        return found[..., 0], found[..., 1:]
    return _on_device(maps, thresholds(maps), recalls)


def _on_device(
    maps: MaskedMaps, found: Thresholds, recalls: Sequence[float]
) -> tuple[Tensor, Tensor]:
    total = (found.new_hits * found.hits / found.seen).sum(dim=-1)
    shares = torch.tensor(recalls, dtype=found.hits.dtype, device=found.hits.device)
    nth = (found.positives * shares - _ROUNDING).ceil().clamp(min=1)
    first = torch.searchsorted(found.hits.contiguous(), nth.contiguous())
    # Equal values share a threshold, which is where the last of them stands.
    places = torch.arange(found.hits.shape[-1], device=first.device).expand(found.hits.shape)
    last = places.masked_fill(~found.closes, places.shape[-1] - 1)
    closing = last.flip(-1).cummin(dim=-1).values.flip(-1)
    at = closing.gather(-1, first.clamp(max=places.shape[-1] - 1))
    seen = found.seen.expand(found.hits.shape)
    precision = found.hits.gather(-1, at) / seen.gather(-1, at)
    return maps.valid(total / found.positives[..., 0]), maps.valid(precision)
