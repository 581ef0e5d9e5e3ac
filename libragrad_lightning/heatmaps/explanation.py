"""The panel that explains one sample: image, attribution maps, object mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from libragrad_lightning.heatmaps.panel import PanelColumn, from_pil, panel, to_pil
from libragrad_lightning.heatmaps.render import (
    mask_overlay,
    overlay,
    positive_heatmap,
    signed_heatmap,
)
from libragrad_lightning.placement import Placement

Style: TypeAlias = Literal["positive", "signed"]
"""What of a map is shown: its positive part as the paper does, or both signs on one scale."""

_COLORMAPS: dict[Style, str] = {"positive": "magma", "signed": "RdBu_r"}


def explanation_panel(
    image: Tensor,
    maps: Mapping[str, Tensor],
    mask: Tensor | None = None,
    caption: str | None = None,
    *,
    column_size: int = 224,
    style: Style = "positive",
    colormap: str | None = None,
    placement: Placement = Placement(),
) -> Tensor:
    """Compose the explanation of one sample: image | map | map | ... | mask.

    Each map is rendered by :func:`positive_heatmap` or :func:`signed_heatmap` at display size, and
    laid over the image. A map with nothing to show, or an empty mask, says so in its title: its
    picture is merely dark.

    Args:
        image: Image [3, H, W], uint8, or floating point in [0, 1] (see
            :func:`to_display_range`).
        maps: Signed attribution maps [h, w], by title, in the order of the columns.
        mask: Object mask [H', W'] of the whole image: bool, or numbers where above 0.5 means
            inside.
        caption: Text below the pictures, such as label, prediction and scores.
        column_size: Aim for the longer side of each picture, in pixels. Smaller images are
            enlarged by the nearest integer factor, larger ones are shrunk to it. The paper's
            figures have 600 and more.
        style: ``positive`` shows the positive part; ``signed`` both signs, red and blue, over a
            gray image.
        colormap: Name of a matplotlib colormap; by default magma, and RdBu_r for both signs.
        placement: Where the patches of the maps lie in the image; by default they divide it evenly.

    Returns:
        The panel [3, Hp, Wp], uint8, on the CPU.

    Raises:
        ValueError: If ``image``, a map or ``mask`` has another shape, ``column_size`` is not
            positive, or the style or the colormap is unknown.
    """
    if style not in _COLORMAPS:
        raise ValueError(f"style must be one of {get_args(Style)}, but it is {style!r}.")
    colormap = colormap or _COLORMAPS[style]
    shown = resized_column(PanelColumn("image", image), column_size)
    columns = [shown]
    for title, found in maps.items():
        columns.append(_map_column(shown, title, found, placement, style, colormap))
    if mask is not None:
        columns.append(mask_column(shown, mask))
    return panel(columns, caption, _font_size(column_size))


def display_size(size: tuple[int, int], column_size: int) -> tuple[int, int]:
    """Choose the size at which an image is shown.

    Args:
        size: Height and width of the image, in pixels.
        column_size: Aim for the longer side, in pixels.

    Returns:
        Height and width, in pixels: shrunk to the aim where the image is larger, else enlarged
        by the integer factor that comes nearest to it.
    """
    longer = max(size)
    scale = max(1, round(column_size / longer)) if longer < column_size else column_size / longer
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _font_size(column_size: int) -> int:
    return max(12, round(column_size / 15))


def resized_column(
    column: PanelColumn,
    column_size: int,
    enlarging: Image.Resampling = Image.Resampling.LANCZOS,
) -> PanelColumn:
    """Return a column at the size at which it is shown.

    Args:
        column: The column.
        column_size: Aim for the longer side, in pixels.
        enlarging: What fills the gaps between the pixels of a small image.

    Raises:
        ValueError: If it is not positive.
    """
    if column_size < 1:
        raise ValueError(f"column_size must be positive, but it is {column_size}.")
    picture = to_pil(column.image)
    height, width = display_size((picture.height, picture.width), column_size)
    how = enlarging if height > picture.height else Image.Resampling.LANCZOS
    resized = picture.resize((width, height), how)
    return PanelColumn(column.title, from_pil(resized).float() / 255)


def _map_column(
    shown: PanelColumn,
    title: str,
    attribution: Tensor,
    placement: Placement,
    style: Style,
    colormap: str,
) -> PanelColumn:
    attribution = checked_map(title, attribution)
    size = (shown.image.shape[1], shown.image.shape[2])
    if style == "signed":
        heat = signed_heatmap(attribution[None], size, placement)
        picture = over_gray(shown.image, heat, colormap)
    else:
        heat = positive_heatmap(attribution[None], size, placement)
        picture = overlay(shown.image[None], heat, colormap)[0]
    return PanelColumn(title + _remark(attribution, heat), picture)


def checked_map(title: str, attribution: Tensor) -> Tensor:
    """Return a map [h, w] on the CPU.

    Raises:
        ValueError: If it has another shape.
    """
    if attribution.ndim != 2:
        raise ValueError(
            f"map {title!r} must be [h, w], but its shape is {list(attribution.shape)}."
        )
    return attribution.detach().cpu()


def over_gray(image: Tensor, heat: Tensor, colormap: str) -> Tensor:
    """Lay heat [1, H, W] in [-1, 1] over an image [3, H, W] without its colors."""
    gray = image.mean(0, keepdim=True).expand_as(image)
    return overlay(gray[None], (heat + 1) / 2, colormap)[0]


def _remark(attribution: Tensor, heat: Tensor) -> str:
    if heat.any():
        return ""
    if not attribution.isfinite().all():
        return "\n(not finite)"
    return "\n(constant)" if (attribution > 0).any() else "\n(nothing positive)"


def mask_column(shown: PanelColumn, mask: Tensor) -> PanelColumn:
    """Return the picture of a mask over an image.

    Args:
        shown: The image.
        mask: Object mask [H', W'] of the whole image.

    Raises:
        ValueError: If it has another shape.
    """
    if mask.ndim != 2:
        raise ValueError(f"mask must be [H, W], but its shape is {list(mask.shape)}.")
    inside = (mask.detach().cpu().float() > 0.5).float()
    # Interpolated before it is cut at 0.5, the edge of an enlarged mask has no stairs.
    resized = F.interpolate(
        inside[None, None], shown.image.shape[1:], mode="bilinear", antialias=True
    )[0]
    title = "mask" if inside.any() else "mask\n(empty)"
    return PanelColumn(title, mask_overlay(shown.image[None], resized)[0])
