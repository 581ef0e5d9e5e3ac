"""The figure of an audit: curves of all rule sets with their bands, and the differences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from libragrad_lightning.heatmaps import (
    IntervalRow,
    PanelColumn,
    PlotLine,
    grid,
    interval_plot,
    legend,
    line_plot,
)
from libragrad_lightning.reporting.comparison import Curve, CurveChart, Difference
from libragrad_lightning.reporting.directions import LOWER
from libragrad_lightning.reporting.looks import looks

_SIDE = 200
"""Of a chart, in pixels: two of them are as wide as TensorBoard shows a picture."""
_FONT = 16
_FIRST, _UNSURE = "most influential first", "*"


def comparison_figure(
    charts: Sequence[CurveChart],
    differences: Sequence[Difference],
    rules: Sequence[str],
    note: str = "",
) -> Tensor | None:
    """Draw the curves of an audit, and by how much rule sets are better than the first one.

    It is drawn in pixels, since a figure of matplotlib would take a quarter of a second at every
    audit, and two charts wide, since TensorBoard shows pictures about 340 pixels wide.

    Args:
        charts: The curves.
        differences: The differences; those without a common scale, such as errors in units of the
            logit, are left to the table.
        rules: The rule sets.
        note: What is to be said of all of it.

    Returns:
        The figure [3, H, W], uint8; None if there is nothing to show.
    """
    cells = [PanelColumn(chart.title, _drawn(chart, rules)) for chart in charts]
    if cells:
        # Where there is an empty place, else below.
        width = _SIDE if len(cells) % 2 else 2 * _SIDE
        cells.append(PanelColumn("", _legend(charts, rules, width)))
    rows = [cells[i : i + 2] for i in range(0, len(cells), 2)]
    shown = [d for d in differences if "error" not in d.metric]
    if shown:
        rows.append([PanelColumn(_said(shown), _intervals(shown, rules))])
    if rows and note:
        rows.append([PanelColumn(note, torch.full((3, 1, 2 * _SIDE), 255, dtype=torch.uint8))])
    return grid(rows, None, _FONT) if rows else None


def _drawn(chart: CurveChart, rules: Sequence[str]) -> Tensor:
    lines = [_line(curve, rules) for curve in chart.curves]
    return line_plot(lines, chart.along, (_SIDE, _SIDE), _FONT - 2)


def _line(curve: Curve, rules: Sequence[str]) -> PlotLine:
    color = looks(rules)[curve.rules].rgb
    dashed, band = bool(curve.order) and curve.order != _FIRST, (curve.lower, curve.upper)
    return PlotLine(curve.places, curve.values, color, dashed, band)


def _legend(charts: Sequence[CurveChart], rules: Sequence[str], width: int) -> Tensor:
    found = looks(rules)
    entries = [(name, found[name].rgb, False) for name in rules]
    orders = dict.fromkeys(c.order for chart in charts for c in chart.curves if c.order)
    entries += [(order, (90, 90, 90), order != _FIRST) for order in orders]
    return legend(entries, width, _FONT - 2)


def _said(shown: Sequence[Difference]) -> str:
    others = " and ".join(dict.fromkeys(d.rules for d in shown))
    said = f"by how much {others} is better than {shown[0].baseline}, with 95 % intervals"
    return said if all(d.is_reliable for d in shown) else f"{said} ({_UNSURE} too narrow, perhaps)"


def _intervals(shown: Sequence[Difference], rules: Sequence[str]) -> Tensor:
    several = len({d.rules for d in shown}) > 1
    rows = []
    for d in shown:
        sign = -1 if d.metric in LOWER else 1
        label = d.metric.replace("_", " ") + (f", {d.rules}" if several else "")
        label += "" if d.is_reliable else f" {_UNSURE}"
        low, high = sorted((sign * d.lower, sign * d.upper))
        rows.append(IntervalRow(label, sign * d.value, low, high, looks(rules)[d.rules].rgb))
    return interval_plot(rows, 2 * _SIDE, _FONT - 2)
