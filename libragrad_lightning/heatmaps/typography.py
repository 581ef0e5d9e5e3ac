"""Text on pictures: one font, wrapped lines."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

INK = (32, 32, 32)
"""Colour of text, RGB: nearly black."""


def font_for(text: str, size: int) -> Font:
    """Choose a font that has the characters of a text.

    Args:
        text: All the text of a picture, so that it is set in one font.
        size: Font size, in pixels.

    Returns:
        Pillow's built-in font, or DejaVu Sans where the text is not plain ASCII.
    """
    if text.isascii():
        return ImageFont.load_default(size=size)
    # Pillow's own font shows a box even for é; matplotlib ships one with most alphabets.
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


def wrap(text: str, font: Font, width: int) -> list[str]:
    """Break a text into lines that fit a width.

    Args:
        text: The text; its line breaks are kept.
        font: Font that it is set in.
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
    """Draw lines of text below each other, each one centred.

    Args:
        draw: Picture to draw on.
        lines: The lines.
        center: Horizontal centre of the lines, in pixels.
        top: Upper edge of the first line, in pixels.
        font: Font to set them in.
        leading: Distance from one line to the next, in pixels.
    """
    for number, line in enumerate(lines):
        left = center - font.getlength(line) / 2
        draw.text((round(left), top + number * leading), line, fill=INK, font=font)


def _shorten(line: str, font: Font, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    end = len(line)
    while end > 1 and font.getlength(f"{line[:end]}...") > width:
        end -= 1
    return f"{line[:end]}..."
