"""Tables, as text."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TypeAlias

Cell: TypeAlias = str | int | float | None


@dataclass(frozen=True)
class TableRows:
    """A table.

    Attributes:
        columns: Names of the columns.
        rows: Rows of as many cells; None is an empty cell.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def csv(self) -> str:
        """Return the table as comma-separated values, with a line of column names."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([self.columns, *self.rows])
        return text.getvalue()

    def markdown(self) -> str:
        """Return the table in Markdown."""
        ruled = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in ruled)


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    return (f"{cell:.4g}" if isinstance(cell, float) else str(cell)).replace("|", "\\|")
