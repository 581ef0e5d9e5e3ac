"""The table that shows audits in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from libragrad_lightning.audit import AuditRecord

COLUMNS = 5
"""How many audits fit into a terminal of 80 columns."""


def summary_table(history: Sequence[AuditRecord], rules: Sequence[str]) -> Table:
    """Return a table with one row per metric and rule set and one column per audit.

    Of many audits, the first, the last and some in between are shown.
    """
    shown = _spread(history, COLUMNS)
    measured = {key.partition("/")[0]: None for record in history for key in record.values}
    deletion = next((r.perturbation for r in reversed(shown) if r.perturbation), "")
    remarks = [deletion] if deletion else []
    if len(shown) < len(history):
        remarks.append(f"{len(shown)} of {len(history)} audits")
    title = f"Explanation audit ({', '.join(remarks)})" if remarks else "Explanation audit"
    by_step = len({record.epoch for record in shown}) < len(shown)
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("metric")
    table.add_column("rules")
    for record in shown:
        table.add_column(_label(record, by_step), justify="right")
    for metric in measured:
        title = metric.replace("_", " ")
        for name in ("", *rules):
            found = [record.values.get(f"{metric}/{name}" if name else metric) for record in shown]
            if any(value is not None for value in found):
                table.add_row(title, name, *map(_cell, found))
                title = ""
    table.add_row("seconds", "", *[f"{record.seconds:.1f}" for record in shown])
    return table


def _label(record: AuditRecord, by_step: bool) -> str:
    named = {"final": "end", "initial": "start"}.get(record.weights)
    return named or (f"step {record.step}" if by_step else f"epoch {record.epoch}")


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
