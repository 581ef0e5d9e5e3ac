"""How rule sets look in every chart: colors, and dashes and markers for those who see none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """How the curve of a rule set looks.

    Attributes:
        color: As ``#rrggbb``.
        line: Style of the line, as matplotlib names it.
        marker: Marker, as matplotlib names it.
    """

    color: str
    line: str
    marker: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The color, 0 to 255."""
        digits = self.color.removeprefix("#")
        red, green, blue = (int(digits[i : i + 2], 16) for i in (0, 2, 4))
        return red, green, blue


_LOOKS = (
    Look("#1f5fa8", "-", "o"),
    Look("#c4551b", "--", "s"),
    Look("#3d7d3a", ":", "^"),
    Look("#7a4a9c", "-.", "D"),
    Look("#8a6d1f", "-", "v"),
    Look("#4d4d4d", "--", "P"),
)


def looks(rules: Sequence[str]) -> dict[str, Look]:
    """Return the looks of rule sets, that of LibraGrad, which comes last by default, first.

    Args:
        rules: The rule sets, in their order; after six of them looks begin anew.
    """
    return {name: _LOOKS[i % len(_LOOKS)] for i, name in enumerate(reversed(rules))}
