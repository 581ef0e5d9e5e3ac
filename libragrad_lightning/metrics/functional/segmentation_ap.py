"""Localisation: does a map rank the pixels of the object above the rest?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from libragrad_lightning.metrics.functional.checks import (
    check_boolean,
    check_floating_point,
    check_layout,
    check_shape,
)
from libragrad_lightning.metrics.functional.precision import accumulation_dtype

if TYPE_CHECKING:
    from torch import Tensor


def segmentation_average_precision(
    attribution: Tensor, mask: Tensor, ignore: Tensor | None = None
) -> Tensor:
    r"""Return the average precision of each map as a detector of the pixels in its mask.

    With the distinct values of a map as thresholds, from the largest down, and precision
    :math:`P_k` and recall :math:`R_k` of the pixels at or above the k-th:

    .. math:: \text{AP} = \sum_k (R_k - R_{k-1}) \, P_k

    The value is exact: equal attributions share one threshold, as in scikit-learn's
    ``average_precision_score``.

    Args:
        attribution: Signed maps [B, H, W], any floating point type; larger means more relevant.
        mask: Pixels of the object [B, H, W], boolean.
        ignore: Pixels to leave out, whether inside or outside the mask: [B, H, W], boolean. All
            pixels count by default.

    Returns:
        Average precision in [0, 1], [B], float64 (float32 on devices without float64); NaN for a
        map without a positive pixel or with a non-finite value on a pixel that counts.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import segmentation_average_precision
        >>> attribution = torch.tensor([[[0.9, 0.1], [0.8, -0.3]]])
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> segmentation_average_precision(attribution, mask).float()
        tensor([0.8333])

    Source:
        LibraGrad (Mehri et al., CVPR 2025), section 4, which counts ignored pixels as background.
    """
    _check_maps(attribution, mask, ignore)
    counted = torch.ones_like(mask) if ignore is None else ~ignore
    counted, positive = counted.flatten(1), (mask & counted).flatten(1)
    scores, order = attribution.flatten(1).sort(dim=1, descending=True)
    precision = _sorted_average_precision(
        scores, positive.gather(1, order), counted.gather(1, order)
    )
    unranked = (counted & ~attribution.flatten(1).isfinite()).any(dim=1)
    return precision.masked_fill(unranked, float("nan"))


def _sorted_average_precision(scores: Tensor, positive: Tensor, counted: Tensor) -> Tensor:
    """Return the average precision [B] of pixels [B, P] sorted by falling score; 0/0 is NaN."""
    dtype = accumulation_dtype(scores.device)
    hits = positive.cumsum(dim=1, dtype=dtype)
    seen = counted.cumsum(dim=1, dtype=dtype)
    is_threshold = F.pad(scores[:, 1:] != scores[:, :-1], (0, 1), value=True)
    hits_so_far = hits.masked_fill(~is_threshold, 0).cummax(dim=1).values
    new_hits = is_threshold * (hits - F.pad(hits_so_far[:, :-1], (1, 0)))
    # Ignored pixels can stand above all counted ones: nothing is seen yet, and nothing is hit.
    return (new_hits * (hits / seen.clamp(min=1))).sum(dim=1) / hits[:, -1]


def _check_maps(attribution: Tensor, mask: Tensor, ignore: Tensor | None) -> None:
    check_layout("attribution", attribution, "[B, H, W]")
    check_floating_point("attribution", attribution)
    flags = {"mask": mask} if ignore is None else {"mask": mask, "ignore": ignore}
    for argument, value in flags.items():
        check_boolean(argument, value)
        check_shape(argument, value, tuple(attribution.shape), "attribution")
