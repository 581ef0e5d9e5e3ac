"""The history of audits, and the table that shows it in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

COLUMNS = 5
"""How many audits fit into a terminal of 80 columns."""


@dataclass(frozen=True)
class AuditRecord:
    """The values of one audit.

    Attributes:
        epoch: The epoch in which it ran, from 0.
        step: The optimizer steps taken before it.
        values: ``metric/rules`` to value.
        seconds: How long the audit took, in the slowest process.
        samples: How many images were explained.
        weights: Which weights were explained: ``current``, ``averaged`` (another callback had
            exchanged them for validation) or ``final`` (what the fit left behind).
        peak_memory_gib: The most CUDA memory in use meanwhile, in GiB; None on other devices.
    """

    epoch: int
    step: int
    values: Mapping[str, float]
    seconds: float
    samples: int
    weights: str = "current"
    peak_memory_gib: float | None = None


def summary_table(history: Sequence[AuditRecord], rules: Sequence[str]) -> Table:
    """Return a table with one row per metric and rule set and one column per audit.

    Of many audits, the first, the last and some in between are shown.
    """
    shown = _spread(history, COLUMNS)
    measured = {key.partition("/")[0]: None for record in history for key in record.values}
    table = Table(title="Explanation audit", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("metric")
    table.add_column("rules")
    for record in shown:
        table.add_column(_label(record), justify="right")
    for metric in measured:
        for i, name in enumerate(rules):
            cells = [_cell(record.values.get(f"{metric}/{name}")) for record in shown]
            table.add_row("" if i else metric.replace("_", " "), name, *cells)
    table.add_row("seconds", "", *[f"{record.seconds:.1f}" for record in shown])
    return table


def _label(record: AuditRecord) -> str:
    if record.weights == "final":
        return "end"
    return f"epoch {record.epoch}" if record.step else "start"


def _spread(history: Sequence[AuditRecord], count: int) -> list[AuditRecord]:
    if len(history) <= count:
        return list(history)
    last = len(history) - 1
    return [history[round(i * last / (count - 1))] for i in range(count)]


def print_summary(history: Sequence[AuditRecord], rules: Sequence[str]) -> None:
    """Print the table if there is anything to show."""
    if history:
        Console().print(summary_table(history, rules))


def _cell(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.1e}"
