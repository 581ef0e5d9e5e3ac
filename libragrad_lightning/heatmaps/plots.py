"""Small charts in pixels: lines with bands, and intervals beside a zero line.

A figure of matplotlib takes a quarter of a second, as long as many an audit, and has to be shrunk
to the size at which loggers show pictures. These take some milliseconds, at that size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw
from torch import Tensor

from libragrad_lightning.heatmaps.panel import from_pil
from libragrad_lightning.heatmaps.typography import font_for

Color: TypeAlias = tuple[int, int, int]
"""RGB, 0 to 255."""
_Point: TypeAlias = tuple[float, float]

_SMOOTH = 2
"""Lines are drawn so many times as large, since Pillow draws them with stairs."""
_GRAY: Color = (150, 150, 150)
_GRID: Color = (228, 228, 228)
_BAND = 0.22
"""How much of a line's color its band has."""
_DASH = 5


@dataclass(frozen=True)
class PlotLine:
    """A line of a chart; points that are not finite are left out.

    Attributes:
        places: Along the horizontal axis.
        values: Along the vertical axis, as many.
        color: Its color.
        dashed: Whether it has gaps.
        band: The lower and the upper end of a band around it, as many each; or None.
    """

    places: Sequence[float]
    values: Sequence[float]
    color: Color
    dashed: bool = False
    band: tuple[Sequence[float], Sequence[float]] | None = None


@dataclass(frozen=True)
class IntervalRow:
    """A value with its interval.

    Attributes:
        label: What it is.
        value: The value.
        lower: The lower end.
        upper: The upper end.
        color: Its color.
    """

    label: str
    value: float
    lower: float
    upper: float
    color: Color


def line_plot(
    lines: Sequence[PlotLine], along: str, size: tuple[int, int], font_size: int = 13
) -> Tensor:
    """Draw lines over a horizontal axis from 0 to 1.

    The vertical axis has all values and bands, and 0.

    Args:
        lines: The lines.
        along: What the horizontal axis is.
        size: Height and width, in pixels.
        font_size: Size of the numbers at the axes, in pixels.

    Returns:
        The chart [3, H, W], uint8.
    """
    height, width = size
    font = font_for("0123456789.-" + along, font_size)
    shown = [v for line in lines for v in _all_values(line) if math.isfinite(v)]
    ticks = [float(t) for t in MaxNLocator(4).tick_values(min([0.0, *shown]), max([0.1, *shown]))]
    labels = [f"{tick:g}" for tick in ticks]
    left = round(max(map(font.getlength, labels))) + 6
    frame = _Frame(
        (left, font_size // 2, width - font_size // 2 - 4, height - 2 * font_size - 8),
        (0.0, 1.0),
        (ticks[0], ticks[-1]),
    )
    picture = Image.new("RGB", (width, height), "white")
    _draw_smooth(picture, frame, lines, ticks)
    draw = ImageDraw.Draw(picture)
    for tick, label in zip(ticks, labels, strict=True):
        _, y = frame.at((0.0, tick))
        top = round(y - 0.62 * font_size)
        font.draw(draw, left - 5 - font.getlength(label), top, label)
    for tick, label in ((0.0, "0"), (0.5, "0.5"), (1.0, "1")):
        x, _ = frame.at((tick, ticks[0]))
        font.draw(draw, x - font.getlength(label) / 2, round(frame.box[3]) + 3, label)
    middle = (frame.box[0] + frame.box[2]) / 2 - font.getlength(along) / 2
    font.draw(draw, middle, round(frame.box[3]) + font_size + 5, along)
    return from_pil(picture)


def interval_plot(rows: Sequence[IntervalRow], width: int, font_size: int = 13) -> Tensor:
    """Draw values with their intervals below each other, beside a line at zero.

    Args:
        rows: The values, from top to bottom.
        width: Width, in pixels.
        font_size: Size of the text, in pixels.

    Returns:
        The chart [3, H, width], uint8.
    """
    font = font_for("".join(row.label for row in rows), font_size)
    said = [f"{row.value:+.2f}" for row in rows]
    leading = round(1.5 * font_size)
    left = round(max(font.getlength(row.label) for row in rows)) + 10
    right = width - round(max(map(font.getlength, said))) - 10
    ends = [v for row in rows for v in (row.lower, row.value, row.upper) if math.isfinite(v)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    room = 0.04 * (high - low) or 1.0
    frame = _Frame(
        (left, 0, right, leading * len(rows)), (low - room, high + room), (0.0, float(len(rows)))
    )
    picture = Image.new("RGB", (width, leading * len(rows) + 2), "white")
    big = _enlarged(picture.size)
    draw = ImageDraw.Draw(big)
    draw.line(frame.scaled([(0.0, 0.0), (0.0, float(len(rows)))]), _GRAY, _SMOOTH)
    for place, row in enumerate(reversed(rows)):
        y = place + 0.5
        draw.line(frame.scaled([(row.lower, y), (row.upper, y)]), row.color, 2 * _SMOOTH)
        ((x, middle),) = frame.scaled([(row.value, y)])
        r = 4 * _SMOOTH
        draw.ellipse((x - r, middle - r, x + r, middle + r), row.color)
    picture = big.resize(picture.size, Image.Resampling.BOX)
    draw = ImageDraw.Draw(picture)
    for place, (row, text) in enumerate(zip(rows, said, strict=True)):
        top = round(leading * place + 0.15 * font_size)
        font.draw(draw, left - 6 - font.getlength(row.label), top, row.label)
        font.draw(draw, width - font.getlength(text), top, text)
    return from_pil(picture)


def legend(entries: Sequence[tuple[str, Color, bool]], width: int, font_size: int = 13) -> Tensor:
    """Draw what lines mean: a piece of each with its name, in as many rows as it takes.

    Args:
        entries: Names, colors, and whether the line is dashed.
        width: Width, in pixels.
        font_size: Size of the names, in pixels.

    Returns:
        The legend [3, H, width], uint8.
    """
    font, leading, sample = font_for("".join(e[0] for e in entries), font_size), 2 * font_size, 26
    places, x, row = [], 0.0, 0
    for name, _, _ in entries:
        taken = sample + 6 + font.getlength(name) + 18
        if x and x + taken - 18 > width:
            x, row = 0.0, row + 1
        places.append((x, row * leading))
        x += taken
    picture = Image.new("RGB", (width, leading * (row + 1)), "white")
    big = _enlarged(picture.size)
    for (x, top), (_, color, dashed) in zip(places, entries, strict=True):
        y = top + leading / 2
        ends = [(x * _SMOOTH, y * _SMOOTH), ((x + sample) * _SMOOTH, y * _SMOOTH)]
        _draw_path(ImageDraw.Draw(big), ends, color, dashed)
    picture = big.resize(picture.size, Image.Resampling.BOX)
    for (x, top), (name, _, _) in zip(places, entries, strict=True):
        font.draw(ImageDraw.Draw(picture), x + sample + 6, top + leading // 5, name)
    return from_pil(picture)


@dataclass(frozen=True)
class _Frame:
    """Where numbers are in a picture.

    Attributes:
        box: Left, upper, right and lower edge of the axes, in pixels.
        across: The numbers at the left and the right edge.
        up: The numbers at the lower and the upper edge.
    """

    box: tuple[float, float, float, float]
    across: tuple[float, float]
    up: tuple[float, float]

    def at(self, point: _Point) -> _Point:
        left, top, right, bottom = self.box
        x = (point[0] - self.across[0]) / (self.across[1] - self.across[0])
        y = (point[1] - self.up[0]) / (self.up[1] - self.up[0])
        return left + x * (right - left), bottom - y * (bottom - top)

    def scaled(self, points: Sequence[_Point]) -> list[_Point]:
        return [(_SMOOTH * x, _SMOOTH * y) for x, y in map(self.at, points)]


def _draw_smooth(
    picture: Image.Image, frame: _Frame, lines: Sequence[PlotLine], ticks: Sequence[float]
) -> None:
    big = _enlarged(picture.size)
    draw, thin = ImageDraw.Draw(big), ImageDraw.Draw(big, "RGBA")
    for tick in ticks:
        draw.line(frame.scaled([(0.0, tick), (1.0, tick)]), _GRID, _SMOOTH)
    for line in lines:
        if line.band is not None:
            lower, upper = (_finite(line.places, end) for end in line.band)
            if len(lower) > 1:
                outline = frame.scaled([*lower, *reversed(upper)])
                thin.polygon(outline, (*line.color, round(255 * _BAND)))
    corners = [(0.0, ticks[-1]), (0.0, ticks[0]), (1.0, ticks[0])]
    draw.line(frame.scaled(corners), _GRAY, _SMOOTH)
    for line in lines:
        points = frame.scaled(_finite(line.places, line.values))
        _draw_path(draw, points, line.color, line.dashed)
    picture.paste(big.resize(picture.size, Image.Resampling.BOX))


def _enlarged(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", (size[0] * _SMOOTH, size[1] * _SMOOTH), "white")


def _draw_path(
    draw: ImageDraw.ImageDraw, points: Sequence[_Point], color: Color, dashed: bool
) -> None:
    width = 2 * _SMOOTH
    if not dashed:
        draw.line(list(points), color, width, joint="curve")
        return
    length, travelled = _DASH * _SMOOTH, 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        whole, done = math.hypot(x1 - x0, y1 - y0), 0.0
        while done < whole:
            step = min(length - travelled % length, whole - done)
            if travelled // length % 2 == 0:
                ends = [(x0 + (x1 - x0) * t / whole, y0 + (y1 - y0) * t / whole)
                        for t in (done, done + step)]  # fmt: skip
                draw.line(ends, color, width)
            # A little more, lest rounding leave a step of nothing.
            done, travelled = done + step + 1e-6, travelled + step + 1e-6


def _finite(places: Sequence[float], values: Sequence[float]) -> list[_Point]:
    return [(x, y) for x, y in zip(places, values, strict=True) if math.isfinite(y)]


def _all_values(line: PlotLine) -> list[float]:
    band = () if line.band is None else (*line.band[0], *line.band[1])
    return [*line.values, *band]
