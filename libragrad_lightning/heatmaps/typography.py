"""Text on pictures: fonts that have its characters, and wrapped lines."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import cast

from PIL import ImageDraw, ImageFont, features

from libragrad_lightning.heatmaps.fonts import DEJAVU, has_all, needs_glyph, split_by_font

INK = (32, 32, 32)
"""Color of text, RGB: nearly black."""

_RIGHT_TO_LEFT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
_END_OF_RIGHT_TO_LEFT = re.compile(rf"([{_RIGHT_TO_LEFT}]\S*)(?=\s+[^\s{_RIGHT_TO_LEFT}])")

_VIRAMA = 9
"""Combining class of the signs that join consonants in the scripts of India."""


class Font:
    """The fonts of a picture: each word is set in one that has its characters.

    Args:
        size: Font size, in pixels.
        plain: Whether all text is ASCII, for which Pillow's own font is enough.
    """

    def __init__(self, size: int, plain: bool) -> None:
        self._size = size
        self._plain = plain
        # What Pillow falls back to without FreeType could draw nothing else here, either.
        own = cast(ImageFont.FreeTypeFont, ImageFont.load_default(size=size))
        self._first = own if plain else _load(DEJAVU, size)

    def getlength(self, text: str) -> float:
        """Return the width of a line, in pixels."""
        return sum(_width(run, font) for run, font in self._runs(text))

    def draw(self, draw: ImageDraw.ImageDraw, left: float, top: int, text: str) -> None:
        """Draw a line, which as a whole runs from left to right.

        Args:
            draw: Picture to draw on.
            left: Left edge, in pixels.
            top: Upper edge, in pixels; the base line is the same whichever fonts the line has.
            text: The line.
        """
        baseline = top + self._first.getmetrics()[0]
        for run, font in self._runs(text):
            place, direction = (round(left), baseline), _direction(font)
            draw.text(place, run, fill=INK, font=font, anchor="ls", direction=direction)
            left += _width(run, font)

    def _runs(self, text: str) -> list[tuple[str, ImageFont.FreeTypeFont]]:
        if self._plain:
            return [(text, self._first)]
        runs = split_by_font(_prepared(text))
        return [(run, _load(path, self._size)) for run, path in runs]


def font_for(text: str, size: int) -> Font:
    """Choose fonts that have the characters of a text.

    Args:
        text: All the text of a picture, so that it is set alike.
        size: Font size, in pixels.

    Returns:
        Pillow's built-in font, or, where the text is not plain ASCII, DejaVu Sans, with installed
        fonts for the words that it cannot draw. See `can_draw`.
    """
    return Font(size, text.isascii())


def can_draw(text: str) -> bool:
    """Say whether a text can be drawn, or would come out as boxes or in the wrong order.

    Chinese, Japanese, Korean, Thai and the scripts of India need an installed font. Text from right
    to left, and the joined or moved letters of India, need Pillow's layout engine Raqm as well.

    Args:
        text: Such as the name of a class.

    Returns:
        Whether `font_for` finds fonts with all its characters that can be put in order.
    """
    composed = unicodedata.normalize("NFC", text)
    if not all(has_all(path, run) for run, path in split_by_font(composed)):
        return False
    if any(unicodedata.category(c) == "Cc" and not c.isspace() for c in composed):
        return False
    return _has_layout_engine() or not any(map(_needs_layout, composed))


def wrap(text: str, font: Font, width: int) -> list[str]:
    """Break a text into lines that fit a width.

    Args:
        text: The text; its line breaks are kept.
        font: Fonts that it is set in.
        width: Largest width of a line, in pixels.

    Returns:
        The lines. A word that is wider than a line is cut and ends in three dots.
    """
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".lstrip()
            if font.getlength(longer) > width and line:
                lines.append(_shorten(line, font, width))
                longer = word
            line = longer
        lines.append(_shorten(line, font, width))
    return lines


def draw_lines(
    draw: ImageDraw.ImageDraw, lines: list[str], center: float, top: int, font: Font, leading: int
) -> None:
    """Draw lines of text below each other, each one centered.

    Args:
        draw: Picture to draw on.
        lines: The lines.
        center: Horizontal center of the lines, in pixels.
        top: Upper edge of the first line, in pixels.
        font: Fonts to set them in.
        leading: Distance from one line to the next, in pixels.
    """
    for number, line in enumerate(lines):
        font.draw(draw, center - font.getlength(line) / 2, top + number * leading, line)


def _shorten(line: str, font: Font, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    end = len(line)
    while end > 1 and font.getlength(f"{line[:end]}...") > width:
        end -= 1
    return f"{line[:end]}..."


def _prepared(text: str) -> str:
    composed = unicodedata.normalize("NFC", text)
    if _has_layout_engine():
        # Else a number after an Arabic name would be set on its left.
        return _END_OF_RIGHT_TO_LEFT.sub("\\1\u200e", composed)
    # What has no ink would become a box.
    return "".join(c for c in composed if c.isspace() or needs_glyph(c))


def _width(run: str, font: ImageFont.FreeTypeFont) -> float:
    return font.getlength(run, direction=_direction(font))


def _direction(font: ImageFont.FreeTypeFont) -> str | None:
    return "ltr" if font.layout_engine == ImageFont.Layout.RAQM else None


@lru_cache(maxsize=32)
def _load(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


def _has_layout_engine() -> bool:
    return bool(features.check("raqm"))


def _needs_layout(character: str) -> bool:
    return (
        unicodedata.bidirectional(character) in ("R", "AL")
        or unicodedata.category(character) == "Mc"
        or unicodedata.combining(character) == _VIRAMA
    )
