"""From attribution maps to colors, as in the figures of the LibraGrad paper.

A *map* is what a method attributes, one signed number per token or pixel, without a scale. A
*heat* is the same at display size, between 0 and 1 (or -1 and 1 where the sign is shown).
"""

from __future__ import annotations

from functools import lru_cache

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.placement import Placement

OUTLIER_QUANTILE = 0.99
"""Everything above this quantile of a map is shown at full heat (paper: 1 % are outliers)."""

_SMALLEST_SPAN = 1e-5
"""Upsampling a constant map in float32 leaves ripples of up to about 1e-6: not to be shown."""

_LARGEST_RATIO = 1e6
"""Keeps the bicubic sums finite; the surplus is clamped away after upsampling in any case."""


_EVEN = Placement()


def positive_heatmap(
    attribution: Tensor, size: tuple[int, int], placement: Placement = _EVEN
) -> Tensor:
    """Render the positive part of attribution maps, as the figures of the paper do.

    Negative values are removed, the map is divided by its 99 % quantile (by its maximum where
    that quantile is zero), upsampled bicubically, clamped to [0, 1] and stretched to fill it.

    A map that holds nothing to show gives zeros: one without positive values, one that is the
    same everywhere, one with a value that is not finite.

    Args:
        attribution: Signed maps [B, h, w], of any floating-point type and scale.
        size: Height and width (H, W) of the display, in pixels.
        placement: Where the patches lie in the image; by default they divide it evenly.

    Returns:
        Heat [B, H, W], float32 in [0, 1].

    Raises:
        ValueError: If ``attribution`` is not [B, h, w], or ``size`` is not positive.
    """
    finite = zero_where_not_finite(attribution)
    heat = resize_bicubic(_divide_by_quantile(finite.clamp(min=0)), size, placement)
    heat = heat.clamp(0, 1)
    low = heat.amin(dim=(1, 2), keepdim=True)
    span = heat.amax(dim=(1, 2), keepdim=True) - low
    return torch.where(span > _SMALLEST_SPAN, (heat - low) / span, 0.0)


def signed_heatmap(
    attribution: Tensor, size: tuple[int, int], placement: Placement = _EVEN
) -> Tensor:
    """Render both signs of attribution maps, for a diverging colormap.

    The map is divided by the 99 % quantile of its absolute value (by the maximum where that
    quantile is zero), upsampled bicubically and clamped. One scale serves both signs and zero
    stays zero, so that equal colors stand for equal amounts.

    ``colorize((heat + 1) / 2, "RdBu_r")`` shows it with white for zero.

    Args:
        attribution: Signed maps [B, h, w], of any floating-point type and scale.
        size: Height and width (H, W) of the display, in pixels.
        placement: Where the patches lie in the image; by default they divide it evenly.

    Returns:
        Heat [B, H, W], float32 in [-1, 1]; zeros for a map with a value that is not finite.

    Raises:
        ValueError: If ``attribution`` is not [B, h, w], or ``size`` is not positive.
    """
    finite = zero_where_not_finite(attribution)
    return resize_bicubic(_divide_by_quantile(finite), size, placement).clamp(-1, 1)


def colorize(heat: Tensor, colormap: str = "magma") -> Tensor:
    """Look heat up in one of matplotlib's colormaps.

    Args:
        heat: Heat [B, H, W]; values outside of [0, 1] count as the nearer end, NaN as 0.
        colormap: Name of a matplotlib colormap.

    Returns:
        Colors [B, 3, H, W], float32 in [0, 1], on the device of ``heat``.

    Raises:
        ValueError: If matplotlib has no such colormap, or ``heat`` is not [B, H, W].
    """
    if heat.ndim != 3:
        raise ValueError(f"heat must be [B, H, W], but its shape is {list(heat.shape)}.")
    table = torch.tensor(_color_table(colormap), device=heat.device)
    level = heat.detach().float().nan_to_num(0.0).clamp(0, 1) * len(table)
    return table[level.long().clamp(max=len(table) - 1)].movedim(-1, 1)


def overlay(
    images: Tensor, heat: Tensor, colormap: str = "magma", heat_weight: float = 0.6
) -> Tensor:
    """Lay colored heat over images: 0.4 of the image and 0.6 of the color (paper).

    Args:
        images: Images [B, 3, H, W], floating point in [0, 1].
        heat: Heat [B, H, W] in [0, 1], of the same height and width.
        colormap: Name of a matplotlib colormap.
        heat_weight: Share of the color in the blend, in [0, 1].

    Returns:
        Pictures [B, 3, H, W], float32 in [0, 1].

    Raises:
        ValueError: If the shapes do not fit together, or the colormap is unknown.
    """
    _check_pair(images, heat, "heat")
    colors = colorize(heat, colormap)
    return (1 - heat_weight) * images.detach().float() + heat_weight * colors


def mask_overlay(images: Tensor, mask: Tensor, dimming: float = 0.65) -> Tensor:
    """Show object masks: the image, dimmed outside of the mask, with the edge drawn in.

    The edge is a light line inside of the mask and a thinner dark one outside, so that it can be
    seen on any image. Their widths follow the longer side: one pixel in 128 for the light one.

    Args:
        images: Images [B, 3, H, W], floating point in [0, 1].
        mask: Masks [B, H, W] of the same height and width: bool, or numbers where above 0.5
            means inside.
        dimming: Share of the brightness that is taken away outside of the mask, in [0, 1].

    Returns:
        Pictures [B, 3, H, W], float32 in [0, 1].

    Raises:
        ValueError: If the shapes do not fit together.
    """
    _check_pair(images, mask, "mask")
    inside = (mask.float() > 0.5).float().unsqueeze(1)
    width = max(1, round(max(mask.shape[-2:]) / 128))
    light = inside - (1 - _dilate(1 - inside, width))
    dark = _dilate(inside, (width + 1) // 2) - inside
    pictures = images.detach().float() * (1 - dimming * (1 - inside))
    return torch.where(light > 0, 1.0, torch.where(dark > 0, 0.0, pictures))


def zero_where_not_finite(attribution: Tensor) -> Tensor:
    """Return maps [B, h, w], float32 or float64, with zeros for those that are not finite.

    Raises:
        ValueError: If ``attribution`` is not [B, h, w].
    """
    if attribution.ndim != 3 or 0 in attribution.shape[1:]:
        raise ValueError(
            f"attribution must be [B, h, w], but its shape is {list(attribution.shape)}."
        )
    maps = attribution.detach()
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    finite = maps.isfinite().flatten(1).all(dim=1)
    # One bad value casts doubt on all others: a map is shown whole or not at all.
    return torch.where(finite[:, None, None], maps, 0.0)


def _divide_by_quantile(maps: Tensor) -> Tensor:
    if not len(maps):
        return maps.float()
    magnitude = maps.abs().flatten(1)
    scale = magnitude.quantile(OUTLIER_QUANTILE, dim=1)
    scale = torch.where(scale > 0, scale, magnitude.amax(dim=1))
    scale = torch.where(scale > 0, scale, 1.0)
    return (maps / scale[:, None, None]).clamp(-_LARGEST_RATIO, _LARGEST_RATIO).float()


def resize_bicubic(maps: Tensor, size: tuple[int, int], placement: Placement = _EVEN) -> Tensor:
    """Return maps [B, h, w] at another size [B, H, W]; 0 where no patch lies.

    Raises:
        ValueError: If ``size`` is not positive.
    """
    if min(size) < 1:
        raise ValueError(f"size must be a positive height and width, but it is {size}.")
    times = [-(-side // pixels) for side, pixels in zip(maps.shape[-2:], size, strict=True)]
    if max(times) == 1:
        return placement.upsampled(maps, size)
    # Shrunk from a size at which every patch has a pixel.
    fine = placement.upsampled(maps, (size[0] * times[0], size[1] * times[1]))
    return F.interpolate(fine[:, None], size, mode="bicubic", align_corners=False, antialias=True)[
        :, 0
    ]


def _dilate(mask: Tensor, radius: int) -> Tensor:
    return F.max_pool2d(mask, kernel_size=2 * radius + 1, stride=1, padding=radius)


def _check_pair(images: Tensor, other: Tensor, name: str) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            "images must be floating point [B, 3, H, W] (see to_display_range), "
            f"but they are {images.dtype} {list(images.shape)}."
        )
    if other.shape != (images.shape[0], *images.shape[2:]):
        raise ValueError(
            f"{name} must be [B, H, W] like images of shape {list(images.shape)}, "
            f"but its shape is {list(other.shape)}."
        )


@lru_cache
def _color_table(colormap: str) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    if colormap not in matplotlib.colormaps:
        raise ValueError(
            f"matplotlib has no colormap {colormap!r}; set colormap to one of its names, "
            "such as 'magma'."
        )
    colors = matplotlib.colormaps[colormap](np.linspace(0, 1, 256))
    return np.asarray(colors[:, :3], dtype=np.float32)
