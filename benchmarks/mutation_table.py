"""Writes the page about slips that tests notice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mutants import mutants
from mutation_map import ROOMS

_HEAD = """# Small slips that the tests notice

`python benchmarks/mutation.py run <room> --count 60` makes slips in a room, one at a time in a
copy (comparisons, arithmetic, conditions, constants, arguments that are dropped or exchanged,
statements that are removed, bounds of slices), and runs the tests of the room that reach the
changed line until one fails. Kinds of slips are drawn in turn, so that rare ones are tried as often
as numbers that are off by one. `python benchmarks/mutation.py table` writes this page.

A slip that nothing can notice is *equivalent*: the program does the same with it. Such slips are
named in `benchmarks/slips/equivalent.json` with the reason, and do not count. The score is
the share of the others that a test notices.
"""


def write_table(results: Path, out: Path, root: Path) -> None:
    """Write the page.

    Args:
        results: The folder of outcomes, one file of JSON lines for each room.
        out: The page.
        root: The root of the project.
    """
    reasons = equivalent(root)
    rows, survivors, excused = [], [], []
    for file in sorted(results.glob("*.jsonl")):
        found = {o["key"]: o for o in map(json.loads, file.read_text().splitlines())}
        lines = _lines(root, found.values())
        current = [o | {"line": lines[key]} for key, o in found.items() if key in lines]
        same = [o for o in current if o["outcome"] == "survived" and o["key"] in reasons]
        left = [o for o in current if o["outcome"] == "survived" and o["key"] not in reasons]
        killed = len(current) - len(same) - len(left)
        score = killed / max(1, killed + len(left))
        rows.append((file.stem, len(current), killed, len(left), len(same), f"{score:.1%}"))
        survivors += [_cells(o) for o in left]
        excused += [(*_cells(o), reasons[o["key"]]) for o in same]
    total = [sum(row[i] for row in rows) for i in range(1, 5)]
    tried = {row[0] for row in rows}
    rows += [(room, 0, 0, 0, 0, "not tried") for room in ROOMS if room not in tried]
    rows.append(("all", *total, f"{total[1] / max(1, total[1] + total[2]):.1%}"))
    parts = [
        _HEAD,
        _table(("room", "slips", "noticed", "not noticed", "equivalent", "score"), rows),
        "## Not noticed\n\n" + (_table(("where", "slip"), survivors) if survivors else "None.\n"),
        "## Equivalent\n\n" + _table(("where", "slip", "why"), excused),
    ]
    out.write_text("\n".join(parts))


def equivalent(root: Path) -> dict[str, str]:
    """Return why some slips cannot be noticed, by their keys."""
    file = root / "benchmarks" / "slips" / "equivalent.json"
    found: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return found


def _lines(root: Path, outcomes: Any) -> dict[str, int]:
    """Return where slips are now, by their keys; those whose functions have changed are not."""
    paths = {outcome["path"] for outcome in outcomes}
    there = [path for path in paths if (root / path).exists()]
    return {m.key: m.line for path in there for m in mutants(path, (root / path).read_text())}


def _cells(outcome: dict[str, Any]) -> tuple[str, str]:
    where = f"{outcome['path'].removeprefix('libragrad_lightning/')}:{outcome['line']}"
    return where, f"{outcome['slip']}: `{outcome['said']}`"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    ruled = [columns, ["---"] * len(columns), *rows]
    lines = (" | ".join(str(cell).replace("|", "\\|") for cell in row) for row in ruled)
    return "".join(f"| {line} |\n" for line in lines)
