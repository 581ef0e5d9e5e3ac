"""Localization with a threshold: the map's mean cuts it into foreground and background."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from libragrad_lightning.metrics.functional.maps import read_masked_maps, scaled_down

if TYPE_CHECKING:
    from torch import Tensor

    from libragrad_lightning.metrics.functional.maps import MaskedMaps


def mask_confusion(attribution: Tensor, mask: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Count the pixels of each mask by what they are and by what the map says they are.

    A pixel is predicted to be foreground if its attribution is above the mean over the pixels that
    count.

    Args:
        attribution: Signed maps [B, H, W], any floating point type; larger means more relevant.
        mask: Pixels of the object [B, H, W], or of M objects per image [B, M, H, W]; boolean.
        ignore: Pixels to leave out: [B, H, W] or shaped like ``mask``, boolean. All pixels count
            by default.

    Returns:
        Numbers of pixels [B, 2, 2] or [B, M, 2, 2], float64 (float32 on devices without float64),
        by true and then by predicted class, background first; NaN for a mask without a pixel that
        counts and for a map with a non-finite value on a pixel that counts.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import mask_confusion
        >>> attribution = torch.tensor([[[0.9, 0.1], [0.8, -0.3]]])
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> mask_confusion(attribution, mask).tolist()
        [[[1.0, 1.0], [1.0, 1.0]]]

    Source:
        Chefer et al., Transformer Interpretability Beyond Attention Visualization (CVPR 2021),
        section 4, "segmentation".
    """
    maps = read_masked_maps(attribution, mask, ignore)
    predicted = threshold_at_mean(maps)
    kinds = [
        maps.negative & ~predicted,
        maps.negative & predicted,
        maps.positive & ~predicted,
        maps.positive & predicted,
    ]
    counts = torch.stack([kind.sum(dim=-1) for kind in kinds], dim=-1)
    return maps.valid(counts.to(maps.wide.dtype).unflatten(-1, (2, 2)))


def mean_iou(confusion: Tensor) -> Tensor:
    r"""Return the intersection over union, averaged over background and foreground.

    .. math:: \frac{1}{2} \sum_c \frac{n_{cc}}{\sum_j n_{cj} + \sum_i n_{ic} - n_{cc}}

    Args:
        confusion: Numbers or shares of pixels [..., 2, 2] by true and by predicted class.

    Returns:
        Values in [0, 1], [...]. A class that is nowhere, neither true nor predicted, is left out.
    """
    both = confusion.diagonal(dim1=-2, dim2=-1)
    either = confusion.sum(dim=-1) + confusion.sum(dim=-2) - both
    return (both / either).nanmean(dim=-1)


def pixel_accuracy(confusion: Tensor) -> Tensor:
    """Return the share of pixels whose predicted class is the true one.

    Args:
        confusion: Numbers or shares of pixels [..., 2, 2] by true and by predicted class.

    Returns:
        Values in [0, 1], [...].
    """
    right = confusion.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return right / confusion.sum(dim=(-2, -1))


def threshold_at_mean(maps: MaskedMaps) -> Tensor:
    """Tell which pixels are above the mean of their map over the pixels that count.

    Args:
        maps: Maps and masks.

    Returns:
        Flags [B, M, P] or [B, 1, P], boolean; False on pixels that do not count.
    """
    values = scaled_down(maps.wide.masked_fill(~maps.counted, 0.0))
    mean = values.sum(dim=-1, keepdim=True) / maps.counted.sum(dim=-1, keepdim=True)
    # Rounded down, the mean of equal values would be below all of them.
    least = values.masked_fill(~maps.counted, float("inf")).amin(dim=-1, keepdim=True)
    return (values > torch.maximum(mean, least)) & maps.counted
