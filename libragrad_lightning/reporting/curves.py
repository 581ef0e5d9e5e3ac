"""Draws how metrics went from audit to audit, for a page."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from libragrad_lightning.audit import AuditRecord
from libragrad_lightning.reporting.directions import arrow

_COLUMNS = 3
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": "#1f5fa8", "linestyle": "-", "marker": "o"},
    {"color": "#c4551b", "linestyle": "--", "marker": "s"},
    {"color": "#3d7d3a", "linestyle": ":", "marker": "^"},
    {"color": "#7a4a9c", "linestyle": "-.", "marker": "D"},
)
"""Told apart without color, too."""


def curves_svg(records: Sequence[AuditRecord], rules: Sequence[str]) -> str:
    """Return a chart for each metric of several audits, a curve for each rule set, as SVG.

    Args:
        records: The audits, oldest first.
        rules: The rule sets.
    """
    metrics = list(
        dict.fromkeys(k.partition("/")[0] for r in records for k in r.values if "/" in k)
    )
    rows = math.ceil(len(metrics) / _COLUMNS)
    figure = Figure(figsize=(11, 2.6 * rows), layout="constrained")
    steps = [record.step for record in records]
    for place, metric in enumerate(metrics):
        axes = figure.add_subplot(rows, _COLUMNS, place + 1)
        for name, look in zip(_last_first(rules), _LOOKS, strict=False):
            values = [record.values.get(f"{metric}/{name}", math.nan) for record in records]
            axes.plot(steps, values, label=name, markersize=4, linewidth=1.4, **look)
        axes.set_title(f"{metric.replace('_', ' ')} {arrow(metric)}".rstrip(), fontsize=10)
        if "error" in metric:
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        if place == 0:
            axes.legend(fontsize=8)
        if place >= len(metrics) - _COLUMNS:
            axes.set_xlabel("step", fontsize=8)
    written = io.StringIO()
    figure.savefig(
        written, format="svg", metadata=dict.fromkeys(("Date", "Format", "Creator", "Type"))
    )
    return written.getvalue().partition("<svg")[1] + written.getvalue().partition("<svg")[2]


def _last_first(rules: Sequence[str]) -> list[str]:
    """Return rule sets with LibraGrad, which comes last by default, first."""
    return list(reversed(rules))
