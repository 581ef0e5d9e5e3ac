"""Localization without a ranking: where is the maximum of a map, and where is its mass?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from libragrad_lightning.metrics.functional.maps import read_masked_maps, scaled_down

if TYPE_CHECKING:
    from torch import Tensor


def pointing_hits(
    attribution: Tensor, mask: Tensor, ignore: Tensor | None = None, tolerance: int = 0
) -> Tensor:
    """Tell whether the maximum of each map lies on its object.

    Of several pixels that share the maximum, the share that lies on the object counts, which is
    the chance of a hit if one of them is drawn.

    Args:
        attribution: Signed maps [B, H, W], any floating point type; larger means more relevant.
        mask: Pixels of the object [B, H, W], or of M objects per image [B, M, H, W]; boolean.
        ignore: Pixels that the maximum may not lie on and that belong to no object: [B, H, W] or
            shaped like ``mask``, boolean. All pixels count by default.
        tolerance: Distance in pixels up to which a maximum beside the object is a hit.

    Returns:
        Values in [0, 1], [B] or [B, M], float64 (float32 on devices without float64); NaN for a
        mask without a pixel that counts and for a map with a non-finite value on a pixel that
        counts.

    Raises:
        ValueError: If a shape or a type is wrong, or the tolerance is negative.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import pointing_hits
        >>> attribution = torch.tensor([[[0.9, 0.1], [0.8, -0.3]]])
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> pointing_hits(attribution, mask).tolist()
        [1.0]

    Source:
        Zhang et al., Top-Down Neural Attention by Excitation Backprop (IJCV 2018), section 4.1,
        where the tolerance is 15 pixels.
    """
    check_tolerance(tolerance)
    maps = read_masked_maps(attribution, mask, ignore)
    values = maps.wide.masked_fill(~maps.counted, -torch.inf)
    at_maximum = values == values.amax(dim=-1, keepdim=True)
    objects = maps.positive.unflatten(-1, attribution.shape[1:])
    hits = at_maximum & _grown(objects, tolerance).flatten(-2)
    dtype = maps.wide.dtype
    return maps.valid(hits.sum(dim=-1, dtype=dtype) / at_maximum.sum(dim=-1, dtype=dtype))


def energy_inside(attribution: Tensor, mask: Tensor, ignore: Tensor | None = None) -> Tensor:
    r"""Return the share of each map's positive attribution that lies on its object.

    .. math:: \frac{\sum_{i \in \text{mask}} \max(a_i, 0)}{\sum_i \max(a_i, 0)}

    Args:
        attribution: Signed maps [B, H, W], any floating point type.
        mask: Pixels of the object [B, H, W], or of M objects per image [B, M, H, W]; boolean.
        ignore: Pixels to leave out: [B, H, W] or shaped like ``mask``, boolean. All pixels count
            by default.

    Returns:
        Values in [0, 1], [B] or [B, M], float64 (float32 on devices without float64); NaN for a
        mask without a pixel that counts, for a map with a non-finite value on a pixel that counts,
        and for a map that is positive nowhere.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import energy_inside
        >>> attribution = torch.tensor([[[0.75, 0.0], [0.25, -0.5]]])
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> energy_inside(attribution, mask).tolist()
        [0.75]

    Source:
        Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural
        Networks (CVPR Workshops 2020), section 4.3, "energy-based pointing game".
    """
    maps = read_masked_maps(attribution, mask, ignore)
    energy = scaled_down(maps.wide.clamp(min=0).masked_fill(~maps.counted, 0.0))
    inside = energy.masked_fill(~maps.positive, 0.0).sum(dim=-1)
    return maps.valid(inside / energy.sum(dim=-1))


def check_tolerance(tolerance: int) -> None:
    """Check the tolerance of the pointing game.

    Args:
        tolerance: Expected as an integer, at least 0.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int) or tolerance < 0:
        raise ValueError(
            "Expected argument `tolerance` to be a non-negative number of pixels"
            f" but got {tolerance!r}."
        )


def _grown(objects: Tensor, radius: int) -> Tensor:
    """Add to objects [B, M, H, W] all pixels within a radius: the union of shifted widened rows."""
    if radius == 0:
        return objects
    height = objects.shape[-2]
    source = objects.float()
    grown = torch.zeros_like(source)
    for shift in range(-min(radius, height - 1), min(radius, height - 1) + 1):
        reach = math.isqrt(radius**2 - shift**2)
        wide = F.max_pool2d(source, (1, 2 * reach + 1), stride=1, padding=(0, reach))
        to = slice(max(shift, 0), height + min(shift, 0))
        from_ = slice(max(-shift, 0), height + min(-shift, 0))
        grown[..., to, :] = torch.maximum(grown[..., to, :], wide[..., from_, :])
    return grown.bool()
