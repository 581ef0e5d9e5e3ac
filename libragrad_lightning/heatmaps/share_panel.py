"""The panels of an audit: pictures in two columns, whose maps share one scale with all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from libragrad_lightning.heatmaps.explanation import (
    checked_map,
    mask_column,
    over_gray,
    resized_column,
)
from libragrad_lightning.heatmaps.panel import PanelColumn, from_pil, grid
from libragrad_lightning.heatmaps.render import overlay
from libragrad_lightning.heatmaps.shares import FULL, share_heat
from libragrad_lightning.heatmaps.typography import font_for
from libragrad_lightning.placement import Placement

_COLORS = "RdBu_r"
_BAR = 10
"""Height of the color bar, in pixels."""
_COLUMNS = 2


@dataclass(frozen=True)
class PanelTarget:
    """Something that an image is explained for.

    Attributes:
        title: What it is; empty if the caption says it.
        maps: Signed attribution maps [h, w], by title.
        notes: What is said of maps below their titles, by title.
        mask: Where it is [H', W'], as in `explanation_panel`, or None.
    """

    title: str
    maps: Mapping[str, Tensor]
    notes: Mapping[str, str] = field(default_factory=dict)
    mask: Tensor | None = None


def share_panel(
    image: Tensor,
    targets: Sequence[PanelTarget],
    mask: Tensor | None = None,
    caption: str | None = None,
    *,
    column_size: int = 192,
    placement: Placement = Placement(),
) -> Tensor:
    """Compose what an image is explained for: image and mask, and below them the maps.

    There are two columns, whatever there is to show, since loggers show pictures about as wide as
    that; type is large beside the pictures for the same reason. Maps are laid over a gray image,
    red for and blue against, on the scale of `share_heat`, with its color bar below.

    Args:
        image: Image [3, H, W], uint8, or floating point in [0, 1].
        targets: What is explained, from top to bottom; empty titles are left out.
        mask: Object mask [H', W'] of the whole image, whatever is explained; or None.
        caption: Text below the pictures.
        column_size: Aim for the longer side of each picture, in pixels.
        placement: Where the patches of the maps lie in the image; by default they divide it evenly.

    Returns:
        The panel [3, Hp, Wp], uint8, on the CPU.

    Raises:
        ValueError: If ``image``, a map or a mask has another shape, or ``column_size`` is not
            positive.
    """
    shown = sharp_column("image", image, column_size)
    rows = [[shown] if mask is None else [shown, mask_column(shown, mask)]]
    for target in targets:
        cells = [_map_cell(shown, target, name, placement) for name in target.maps]
        cells += [] if target.mask is None else [mask_column(shown, target.mask)]
        rows += [cells[i : i + _COLUMNS] for i in range(0, len(cells), _COLUMNS)]
    font = max(12, round(column_size / 12))
    width = max(len(row) for row in rows) * shown.image.shape[2]
    rows.append([PanelColumn("", color_bar(width, font))])
    return grid(rows, caption, font)


def sharp_column(title: str, image: Tensor, column_size: int) -> PanelColumn:
    """Return an image at the size at which it is shown, the pixels of small ones as squares.

    Args:
        title: Text above it.
        image: Image [3, H, W].
        column_size: Aim for the longer side, in pixels.
    """
    column = PanelColumn(title, image)
    return resized_column(column, column_size, Image.Resampling.NEAREST)


def share_overlay(image: Tensor, attribution: Tensor, placement: Placement = Placement()) -> Tensor:
    """Lay a map over a gray image, red for and blue against, on the scale of `share_heat`.

    Args:
        image: Image [3, H, W], floating point in [0, 1].
        attribution: Signed map [h, w].
        placement: Where its patches lie in the image; by default they divide it evenly.

    Returns:
        The picture [3, H, W], float32 in [0, 1].
    """
    heat = share_heat(attribution[None], (image.shape[1], image.shape[2]), placement)
    return over_gray(image, heat, _COLORS)


def color_bar(width: int, font_size: int) -> Tensor:
    """Draw what the colors of `share_overlay` mean.

    Args:
        width: Width, in pixels.
        font_size: Size of the text, in pixels.

    Returns:
        The bar with its text [3, H, width], uint8.
    """
    texts, unit = (f"against {FULL:g}x", "0", f"for {FULL:g}x"), "times the average patch"
    font, leading = font_for("".join(texts), font_size), round(1.25 * font_size)
    heat = torch.linspace(0, 1, width).expand(_BAR, width)
    # Over a middle gray, as over an image.
    colors = overlay(torch.full((1, 3, _BAR, width), 0.5), heat[None], _COLORS)[0]
    picture = Image.new("RGB", (width, _BAR + 2 * leading), "white")
    picture.paste(Image.fromarray((colors * 255).byte().movedim(0, -1).numpy()))
    draw = ImageDraw.Draw(picture)
    room = [width - font.getlength(text) for text in texts]
    for left, text in zip((0, room[1] / 2, room[2]), texts, strict=True):
        font.draw(draw, left, _BAR + 2, text)
    font.draw(draw, (width - font.getlength(unit)) / 2, _BAR + leading, unit)
    return from_pil(picture)


def _map_cell(
    shown: PanelColumn, target: PanelTarget, name: str, placement: Placement
) -> PanelColumn:
    attribution = checked_map(name, target.maps[name])
    picture = share_overlay(shown.image, attribution, placement)
    lines = [target.title, name, target.notes.get(name, "")]
    title = "\n".join(line for line in lines if line)
    return PanelColumn(title + _remark(attribution), picture)


def _remark(attribution: Tensor) -> str:
    if not attribution.isfinite().all():
        return "\n(not finite)"
    if (attribution == 0).all():
        return "\n(zero everywhere)"
    return "\n(constant)" if (attribution == attribution[0, 0]).all() else ""
