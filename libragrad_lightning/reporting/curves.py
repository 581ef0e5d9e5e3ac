"""Draws how metrics went from audit to audit, for a page."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from libragrad_lightning.audit import AuditRecord
from libragrad_lightning.reporting.directions import arrow
from libragrad_lightning.reporting.looks import looks

_COLUMNS = 3


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
        for name, look in looks(rules).items():
            values = [record.values.get(f"{metric}/{name}", math.nan) for record in records]
            style = f"{look.marker}{look.line}"
            axes.plot(
                steps, values, style, color=look.color, label=name, markersize=4, linewidth=1.4
            )
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
