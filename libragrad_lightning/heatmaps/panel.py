"""Panels: pictures side by side, with titles above them and a line of text below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from libragrad_lightning.heatmaps.typography import Font, draw_lines, font_for, wrap

_NARROWEST = 5
"""Narrowest column, in line heights: room for a short title above a tall, thin picture."""


@dataclass(frozen=True, eq=False)
class PanelColumn:
    """One picture of a panel.

    Attributes:
        title: Short text above the picture; may be empty.
        image: The picture [3, H, W], uint8, or floating point in [0, 1].

    Raises:
        ValueError: If ``image`` is not such a picture.
    """

    title: str
    image: Tensor

    def __post_init__(self) -> None:
        is_picture = self.image.ndim == 3 and len(self.image) == 3 and self.image.numel() > 0
        if not is_picture or not (
            self.image.dtype == torch.uint8 or self.image.is_floating_point()
        ):
            raise ValueError(
                f"image of column {self.title!r} must be [3, H, W], uint8 or floating point, "
                f"but it is {self.image.dtype} {list(self.image.shape)}."
            )


def panel(columns: Sequence[PanelColumn], footer: str | None = None, font_size: int = 15) -> Tensor:
    """Set pictures side by side on white, as in a figure.

    Pictures keep their size; a narrow one gets a wider column, so that its title has room.
    Titles and footer are wrapped where they are too long for one line.

    Args:
        columns: The pictures, from left to right.
        footer: Text below the pictures, over the width of the panel.
        font_size: Size of titles and footer in pixels; margins follow it.

    Returns:
        The panel [3, H, W], uint8, on the CPU.

    Raises:
        ValueError: If there is no column.
    """
    return grid([columns], footer, font_size)


def grid(
    rows: Sequence[Sequence[PanelColumn]], footer: str | None = None, font_size: int = 15
) -> Tensor:
    """Set rows of pictures below each other, as `panel` does one.

    Pictures of one size make columns; shorter rows stand in the middle.

    Args:
        rows: The pictures, from left to right in each row.
        footer: Text below the pictures, over the width of the panel.
        font_size: Size of titles and footer in pixels; margins follow it.

    Returns:
        The panel [3, H, W], uint8, on the CPU.

    Raises:
        ValueError: If there is no row, or one without a column.
    """
    if not rows or not all(rows):
        raise ValueError("columns is empty; a panel needs at least one column.")
    titles = [column.title for columns in rows for column in columns]
    font = font_for("".join([footer or "", *titles]), font_size)
    leading, margin, gap = round(1.3 * font_size), font_size, round(0.7 * font_size)
    strips = [_strip(columns, font, leading, gap) for columns in rows]
    width = max(strip.width for strip in strips)
    lines = wrap(footer or "", font, width)

    height = sum(strip.height for strip in strips) + gap * (len(strips) - 1)
    footer_top = margin + height + (gap if lines else 0)
    size = (width + 2 * margin, footer_top + leading * len(lines) + margin)
    canvas, top = Image.new("RGB", size, "white"), margin
    for strip in strips:
        canvas.paste(strip, (margin + (width - strip.width) // 2, top))
        top += strip.height + gap
    draw_lines(ImageDraw.Draw(canvas), lines, canvas.width / 2, footer_top, font, leading)
    return from_pil(canvas)


def stacked(panels: Sequence[Tensor]) -> Tensor:
    """Set panels below each other on white, as the lines of a figure.

    Args:
        panels: The panels [3, H, W], uint8, from top to bottom.

    Returns:
        The figure [3, H', W'], uint8.

    Raises:
        ValueError: If there is no panel.
    """
    if not panels:
        raise ValueError("panels is empty; a figure needs at least one panel.")
    width = max(panel.shape[2] for panel in panels)
    return torch.cat([F.pad(p, (0, width - p.shape[2]), value=255) for p in panels], dim=1)


def _strip(columns: Sequence[PanelColumn], font: Font, leading: int, gap: int) -> Image.Image:
    pictures = [to_pil(column.image) for column in columns]
    widths = [max(picture.width, _NARROWEST * leading) for picture in pictures]
    titles = [
        wrap(column.title, font, width) for column, width in zip(columns, widths, strict=True)
    ]
    rows = max(map(len, titles))
    top = leading * rows + (gap // 2 if rows else 0)
    height = max(picture.height for picture in pictures)

    strip = Image.new("RGB", (sum(widths) + gap * (len(columns) - 1), top + height), "white")
    left = 0
    for picture, width, lines in zip(pictures, widths, titles, strict=True):
        x = left + (width - picture.width) // 2
        strip.paste(picture, (x, top + (height - picture.height) // 2))
        # Titles stand on their pictures: a shorter one starts lower.
        title_top = leading * (rows - len(lines))
        draw_lines(ImageDraw.Draw(strip), lines, left + width / 2, title_top, font, leading)
        left += width + gap
    return strip


def to_pil(image: Tensor) -> Image.Image:
    """Convert a picture [3, H, W], uint8 or floating point in [0, 1], to a Pillow image."""
    pixels = image.detach()
    if pixels.is_floating_point():
        pixels = (pixels.float().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.movedim(0, -1).cpu().numpy())


def from_pil(image: Image.Image) -> Tensor:
    """Convert a Pillow image in RGB to a picture [3, H, W], uint8."""
    return torch.from_numpy(np.array(image)).movedim(-1, 0).contiguous()
