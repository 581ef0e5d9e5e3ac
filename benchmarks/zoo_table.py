"""Summarizes the measurements of the zoo by timm module."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median

from zoo_rows import Row

TOLERANCE = 1e-9
"""The largest float64 error that counts as rounding."""

_HEADER = """# Completeness over timm

For every architecture: random weights, biases and running statistics, two random images, pixels as
the explained tensor. The error is |sum of the FullGrad decomposition - logit| / |logit| in float64.
`measured` were run; `inferred` have the timm module, the class and the set of graph operations
(with the flows of their operands) of one that was.

"""


def write_table(rows: Iterable[Row], path: Path) -> None:
    """Write the summary as Markdown."""
    modules: dict[str, list[Row]] = {}
    for row in rows:
        modules.setdefault(row.module, []).append(row)
    lines = [
        "| timm module | architectures | measured | inferred | reduced | worst Libra | median plain"
        " | worst Libra, float32 | misses |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
        *(_line(module, modules[module]) for module in sorted(modules)),
        _total([row for group in modules.values() for row in group]),
    ]
    path.write_text(_HEADER + "\n".join(lines) + "\n")


def _line(module: str, rows: list[Row]) -> str:
    return _format(module, rows, "; ".join(_miss(row) for row in misses(rows)))


def _total(rows: list[Row]) -> str:
    return _format("**all**", rows, str(len(misses(rows))))


def _format(label: str, rows: list[Row], remarks: str) -> str:
    libra = [row.libra for row in rows if row.libra is not None]
    plain = [row.plain for row in rows if row.plain is not None]
    single = [row.libra_float32 for row in rows if row.libra_float32 is not None]
    cells = [
        label,
        str(len(rows)),
        str(len(libra)),
        str(sum(row.status == "inferred" for row in rows)),
        str(sum(row.reduced for row in rows)),
        f"{max(libra):.0e}" if libra else "",
        f"{median(plain):.2g}" if plain else "",
        f"{max(single):.0e}" if single else "",
        remarks,
    ]
    return "| " + " | ".join(cells) + " |"


def misses(rows: Iterable[Row]) -> list[Row]:
    """Return the architectures that are not decomposed completely, or not known to be."""
    rows = list(rows)
    incomplete = {row.name for row in rows if row.status != "inferred" and not _is_complete(row)}
    return [row for row in rows if {row.name, row.inferred_from} & incomplete]


def _is_complete(row: Row) -> bool:
    return row.libra is not None and row.libra <= TOLERANCE and not row.unknown


def _miss(row: Row) -> str:
    if row.inferred_from:
        return f"{row.name} (as {row.inferred_from})"
    if row.libra is None:
        return f"{row.name}: {row.status}"
    cause = f"unknown {row.unknown}" if row.unknown else "see the notes"
    return f"{row.name} ({row.libra:.0e}): {cause}"
