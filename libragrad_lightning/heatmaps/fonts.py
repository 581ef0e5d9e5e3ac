"""Which font file has which characters: that of matplotlib, else one that is installed."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
"""The font that comes with matplotlib: Latin, Greek, Cyrillic, Hebrew, Arabic, many symbols."""

# Boxes or blanks for every character, and colored pictures, which are not drawn in ink.
_NO_TEXT = ("lastresort", "adobeblank", "notdef", "color")
_LATER = re.compile(
    "bold|black|heavy|medium|light|thin|italic|oblique|condensed|mono|serif|unifont"
)
_WORDS = re.compile(r"\s+|\S+")


def needs_glyph(character: str) -> bool:
    """Say whether a character is seen: no space, joiner, direction mark or variation selector.

    Args:
        character: A single one.

    Returns:
        Whether a font has to have it.
    """
    return not (
        character.isspace()
        or unicodedata.category(character) == "Cf"
        or unicodedata.name(character, "").startswith("VARIATION SELECTOR")
    )


@lru_cache(maxsize=4096)
def find_font(text: str) -> Path | None:
    """Find a font that has all characters of a text.

    Args:
        text: A character or a word.

    Returns:
        DejaVu Sans if possible, else an installed font, or None if no single one has all.
    """
    if has_all(DEJAVU, text):
        return DEJAVU
    table = _installed()
    # In order, for the same choice every time.
    candidates = dict.fromkeys(table[ord(c)] for c in sorted(text) if ord(c) in table)
    return next((path for path in candidates if has_all(path, text)), None)


def has_all(path: Path, text: str) -> bool:
    """Say whether a font has all characters of a text.

    Args:
        path: The font's file.
        text: Any text; spaces, joiners and the like are not looked for.
    """
    present = _characters(path)
    return all(ord(character) in present for character in text if needs_glyph(character))


def split_by_font(text: str) -> list[tuple[str, Path]]:
    """Divide a line into runs that are set in one font each.

    A word stays whole where one font has all of it, since letters join and marks move within a
    word, and runs are as long as they can be, since their order depends on neighbors, too.

    Args:
        text: The line.

    Returns:
        The runs, which make up the text, and their fonts: DejaVu Sans for characters that no font
        has, which become boxes.
    """
    runs: list[tuple[str, Path]] = []
    for part in (piece for word in _WORDS.findall(text) for piece in _pieces(word)):
        font, is_seen = find_font(part) or DEJAVU, any(map(needs_glyph, part))
        if runs and (font == runs[-1][1] or not is_seen):
            runs[-1] = (runs[-1][0] + part, runs[-1][1])
        else:
            runs.append((part, font))
    return runs


def _pieces(word: str) -> list[str]:
    if find_font(word) is not None:
        return [word]
    pieces: list[str] = []
    for character in word:
        if pieces and (unicodedata.combining(character) or not needs_glyph(character)):
            pieces[-1] += character
        else:
            pieces.append(character)
    return pieces


@lru_cache(maxsize=16)
def _characters(path: Path) -> frozenset[int]:
    """Return the code points that a font has, none if it has no outlines or cannot be read."""
    try:
        font = FT2Font(str(path))
    except (OSError, RuntimeError, ValueError):
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()


@lru_cache(maxsize=1)
def _installed() -> dict[int, Path]:
    """Return the preferred font of every code point that an installed font has."""
    table: dict[int, Path] = {}
    for path in reversed(installed_fonts()):
        table.update(dict.fromkeys(_characters(path), path))
    return table


def installed_fonts() -> list[Path]:
    """List the installed fonts.

    Returns:
        Files, upright sans-serif ones of regular weight first.
    """
    # Its import lists the fonts of the machine, which takes seconds the first time, and the list
    # that it keeps knows no font that was installed later; so this is done when it is needed.
    from matplotlib.font_manager import findSystemFonts

    files = sorted(map(Path, findSystemFonts()))
    usable = (path for path in files if not any(word in _plain(path) for word in _NO_TEXT))
    return sorted(usable, key=_rank)


def _rank(path: Path) -> tuple[int, bool, str]:
    return len(_LATER.findall(_plain(path))), "sans" not in _plain(path), path.name


def _plain(path: Path) -> str:
    return path.stem.lower().replace(" ", "")
