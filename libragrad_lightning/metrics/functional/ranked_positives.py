"""How the pixels of a mask rank among all pixels of a map, one map after the other.

The values of the mask's pixels are all the thresholds that count: at any other, precision is lower
at the same recall. To sort values alone, and one map that fits into the caches of a processor, is
faster there than to sort all maps at once, or to move indices along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from libragrad_lightning.metrics.functional.maps import MaskedMaps


def by_mask(
    maps: MaskedMaps,
    value: Callable[
        [NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64] | np.floating | float
    ],
    size: tuple[int, ...] = (),
) -> Tensor:
    """Return the value [B, M, *size] of what `ranked` finds of every mask, float64.

    Args:
        maps: Maps and masks on the CPU.
        value: Takes what `ranked` returns to a value.
        size: The shape of a value.

    Returns:
        The values, NaN for empty masks.
    """
    scores = maps.attribution.detach()
    # numpy has no bfloat16, and sorts no half precision with vector instructions.
    rows = (scores if scores.dtype is torch.float64 else scores.float()).numpy()
    masks = tuple(maps.positive.shape[:2])
    found = np.full((*masks, *size), np.nan)
    counted = None if maps.all_count else maps.counted.expand(maps.positive.shape).numpy()
    for (image, mask), positive in zip(
        np.ndindex(masks), maps.positive.flatten(0, 1).numpy(), strict=True
    ):
        row = rows[image]
        if counted is not None:
            row, positive = row[counted[image, mask]], positive[counted[image, mask]]
        if positive.any():
            found[image, mask] = value(*ranked(row, positive))
    return torch.from_numpy(found)


def ranked(
    scores: NDArray[np.floating], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count what is at or above every pixel of a mask.

    Args:
        scores: Values of all pixels [P], float32 or float64. Those that are not finite are ranked
            anywhere.
        positive: Which of them belong to the mask [P].

    Returns:
        Pixels of the mask, and all pixels, at or above each pixel of the mask, [N] each.
    """
    inside, outside = np.sort(scores[positive]), np.sort(scores[~positive])
    first = np.arange(len(inside))
    first[1:][inside[1:] == inside[:-1]] = 0  # equal values share the place of the first of them
    hits = len(inside) - np.maximum.accumulate(first).astype(np.float64)
    return hits, hits + (len(outside) - np.searchsorted(outside, inside))
