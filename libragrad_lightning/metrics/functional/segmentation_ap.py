"""Localization without a threshold: does a map rank the pixels of the object above the rest?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.functional.maps import read_masked_maps
from libragrad_lightning.metrics.functional.ranked_pixels import thresholds
from libragrad_lightning.metrics.functional.ranked_positives import by_mask

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
        mask: Pixels of the object [B, H, W], or of M objects per image [B, M, H, W]; boolean.
        ignore: Pixels to leave out, whether inside or outside the mask: [B, H, W] or shaped like
            ``mask``, boolean. All pixels count by default.

    Returns:
        Average precision in [0, 1], [B] or [B, M], float64 (float32 on devices without float64);
        NaN for a mask without a pixel that counts and for a map with a non-finite value on a pixel
        that counts.

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
    maps = read_masked_maps(attribution, mask, ignore)
    if attribution.device.type == "cpu":
        return maps.valid(by_mask(maps, lambda hits, seen: float((hits / seen).mean())))
    found = thresholds(maps)
    total = (found.new_hits * found.hits / found.seen).sum(dim=-1)
    return maps.valid(total / found.positives[..., 0])


def segmentation_max_f1(attribution: Tensor, mask: Tensor, ignore: Tensor | None = None) -> Tensor:
    r"""Return the largest F1 score that any threshold on each map reaches.

    .. math:: \max_k \frac{2 \, P_k R_k}{P_k + R_k}

    with precision and recall as in ``segmentation_average_precision``.

    Args:
        attribution: Signed maps [B, H, W], any floating point type; larger means more relevant.
        mask: Pixels of the object [B, H, W], or of M objects per image [B, M, H, W]; boolean.
        ignore: Pixels to leave out: [B, H, W] or shaped like ``mask``, boolean.

    Returns:
        F1 in (0, 1], [B] or [B, M], float64 (float32 on devices without float64); NaN for a mask
        without a pixel that counts and for a map with a non-finite value on a pixel that counts.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import segmentation_max_f1
        >>> attribution = torch.tensor([[[0.9, 0.1], [0.8, -0.3]]])
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> segmentation_max_f1(attribution, mask).float()
        tensor([0.8000])
    """
    maps = read_masked_maps(attribution, mask, ignore)
    if attribution.device.type == "cpu":
        best = by_mask(maps, lambda hits, seen: float((2 * hits / (seen + hits[0])).max()))
        return maps.valid(best)
    found = thresholds(maps)
    f1 = 2 * found.hits / (found.seen + found.positives)
    return maps.valid((f1 * found.closes).amax(dim=-1))
