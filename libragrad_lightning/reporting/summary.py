"""The table that shows audits in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from rich import get_console
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from libragrad_lightning.audit import AuditRecord
from libragrad_lightning.reporting.directions import arrow

_FEWEST, _NARROWEST = 2, 8
"""Audits that are shown in any case, and the characters that one takes at least."""


def summary_table(history: Sequence[AuditRecord], rules: Sequence[str], count: int = 5) -> Table:
    """Return a table with one row per metric and rule set and one column per audit.

    Of many audits, the first, the last and some in between are shown. An arrow behind a metric says
    whether more or less of it is better.

    Args:
        history: The audits, oldest first.
        rules: The rule sets.
        count: How many audits are shown at most.
    """
    shown = _spread(history, count)
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
        title = f"{metric.replace('_', ' ')} {arrow(metric)}".rstrip()
        for name in ("", *rules):
            found = [record.values.get(f"{metric}/{name}" if name else metric) for record in shown]
            if any(value is not None for value in found):
                table.add_row(title, name, *map(number, found))
                title = ""
    table.add_row("seconds", "", *[f"{record.seconds:.1f}" for record in shown])
    return table


class _Moment(Protocol):
    @property
    def epoch(self) -> int | None: ...
    @property
    def step(self) -> int: ...
    @property
    def weights(self) -> str: ...


def moment_name(record: _Moment, by_step: bool) -> str:
    """Return when an audit was: ``start``, ``end``, or its epoch or step.

    Args:
        record: The audit, or what else has its epoch, step and weights.
        by_step: Whether epochs do not tell audits apart.
    """
    named = {"final": "end", "initial": "start"}.get(record.weights)
    unknown = by_step or record.epoch is None
    return named or (f"step {record.step}" if unknown else f"epoch {record.epoch}")


def _label(record: AuditRecord, by_step: bool) -> str:
    is_known = record.epoch is not None or record.weights in ("final", "initial")
    return moment_name(record, by_step) if is_known else record.when


def _spread(history: Sequence[AuditRecord], count: int) -> list[AuditRecord]:
    if len(history) <= count:
        return list(history)
    last = len(history) - 1
    return [history[round(i * last / (count - 1))] for i in range(count)]


def print_summary(history: Sequence[AuditRecord], rules: Sequence[str]) -> None:
    """Print the table if there is anything to show.

    The console is the one of Lightning's rich progress bar, which would write over what another one
    prints beside it.
    """
    if history:
        console = get_console()
        console.print(_fitting(history, rules, console))


def print_heading(history: Sequence[AuditRecord]) -> None:
    """Print in one line what the last audit explained, if there was one.

    For runs whose values Lightning prints by itself.
    """
    if history:
        last = history[-1]
        deletion = f", {last.perturbation}" if last.perturbation else ""
        heading = f"Explanation audit of {last.samples} images ({last.when}{deletion})"
        get_console().print(heading, highlight=False)


def _fitting(history: Sequence[AuditRecord], rules: Sequence[str], console: Console) -> Table:
    """Return the table of as many audits as the terminal is wide enough for."""
    options = console.options.update(width=10 * console.width)
    for count in range(max(_FEWEST, console.width // _NARROWEST), _FEWEST, -1):
        table = summary_table(history, rules, count)
        if Measurement.get(console, options, table).maximum <= console.width:
            return table
    return summary_table(history, rules, _FEWEST)


def number(value: float | None) -> str:
    """Return a number for people; a hyphen where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.1e}"
