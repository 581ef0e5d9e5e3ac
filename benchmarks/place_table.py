"""Summarizes where the tokens of models were found, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from place_measurement import SAME, PlaceRow

_HEADER = """# Where tokens lie

A map is only worth something if the value at a cell belongs to what the image has there. This page
says for which models that was checked, by a test that knows nothing of how the places of tokens
are found: the pixels of a cell are changed, and the token that moves must be the cell's.

Models are small and random, biases and scales included. Two different images are changed at once,
in different cells, up to 16 of them (8 at deeper levels) with all corners. At the first level the
cell's token must move most, or next to another one that does nearly as much, as behind stems that
overlap; where patches do not overlap it must be the only one, and tokens that are no patches must
not move, or with every cell. Where that is not clear, as at deeper levels, where tokens have mixed,
weights are made small, so that residual connections alone carry a token on, and kernels narrow.
What is still spread out then is *unclear*. A model is *in place* if no level is wrong.

`alone` are those of which each change moved one token of the first level alone. The residual is the
largest of a level under Libra, relative to the logit; `batch` says how far the map of an image
alone, and of one in a pair, is from its map among three. Where that is more than rounding, the
page also says how far the map is from that of the same image with every pixel moved by one unit in
the last place (ulp): some deep models with random weights are so unsteady. All models are in
[places.csv](places.csv).

"""
_VERDICTS = ("in place", "MISPLACED", "refused", "foreign error", "too costly", "not built")
_COMPLETE = 1e-9


def write_table(rows: Iterable[PlaceRow], path: Path) -> None:
    """Write the summary page."""
    rows = list(rows)
    libraries: dict[str, list[PlaceRow]] = {}
    for row in rows:
        libraries.setdefault(row.library, []).append(row)
    lines = [
        f"| library | models | {' | '.join(_VERDICTS)} | alone | levels | unclear levels "
        "| worst residual | worst batch |",
        f"|---|{'--:|' * (len(_VERDICTS) + 6)}",
        *(_line(name, group) for name, group in libraries.items()),
        _line("**all**", rows),
    ]
    sections = [
        ("Misplaced", [_named(r, r.reason) for r in rows if r.verdict == "MISPLACED"]),
        ("Foreign errors", [_named(r, r.reason) for r in rows if r.verdict == "foreign error"]),
        ("Refused", [_named(r, r.reason) for r in rows if r.verdict == "refused"]),
        ("Found, but not explained", [_named(r, r.unexplained) for r in rows if r.unexplained]),
        (
            "Incomplete, or different in a batch",
            [_named(r, _inexact(r)) for r in rows if _inexact(r)],
        ),
        (
            "Unclear levels",
            [_named(r, f"levels {r.unclear} of {r.levels}") for r in rows if r.unclear],
        ),
        ("Not checked", [_named(r, r.reason) for r in rows if r.verdict in _VERDICTS[4:]]),
    ]
    text = _HEADER + "\n".join(lines) + "\n"
    for title, found in sections:
        if found:
            text += f"\n## {title}\n\n" + "\n".join(found) + "\n"
    path.write_text(text)


def _line(label: str, rows: list[PlaceRow]) -> str:
    counts = Counter(row.verdict for row in rows)
    residuals = [row.residual for row in rows if row.residual is not None]
    batches = [row.batch for row in rows if row.batch is not None]
    cells = [
        label,
        str(len(rows)),
        *(str(counts[verdict]) for verdict in _VERDICTS),
        str(sum(bool(row.alone) for row in rows)),
        str(sum(row.levels or 0 for row in rows)),
        str(sum(len(row.unclear.split()) for row in rows)),
        f"{max(residuals):.0e}" if residuals else "",
        f"{max(batches):.0e}" if batches else "",
    ]
    return "| " + " | ".join(cells) + " |"


def _named(row: PlaceRow, text: str) -> str:
    return f"- {row.name}: {text}"


def _inexact(row: PlaceRow) -> str:
    found = []
    # Not numbers are not small either.
    if row.residual is not None and not row.residual <= _COMPLETE:
        found.append(f"residual {row.residual:.0e}")
    if row.batch is not None and not row.batch <= SAME:
        own = "" if row.moved is None else f" ({row.moved:.0e} with its pixels moved by one ulp)"
        found.append(f"in a batch other by {row.batch:.0e}{own}")
    return ", ".join(found)
