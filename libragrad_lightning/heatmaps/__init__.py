"""Heatmaps: from attribution maps to pictures.

Knows tensors and pictures only: no model, no trainer, no plotting backend.
"""

from libragrad_lightning.heatmaps.display import to_display_range
from libragrad_lightning.heatmaps.encoding import encoded
from libragrad_lightning.heatmaps.explanation import Style, explanation_panel
from libragrad_lightning.heatmaps.panel import PanelColumn, grid, panel, stacked, to_pil
from libragrad_lightning.heatmaps.plots import (
    IntervalRow,
    PlotLine,
    interval_plot,
    legend,
    line_plot,
)
from libragrad_lightning.heatmaps.render import (
    colorize,
    mask_overlay,
    overlay,
    positive_heatmap,
    signed_heatmap,
)
from libragrad_lightning.heatmaps.share_panel import (
    PanelTarget,
    color_bar,
    share_overlay,
    share_panel,
)
from libragrad_lightning.heatmaps.shares import amount, share_heat
from libragrad_lightning.heatmaps.strip import StripMoment, strip

__all__ = [
    "IntervalRow",
    "PanelColumn",
    "PanelTarget",
    "PlotLine",
    "StripMoment",
    "Style",
    "amount",
    "color_bar",
    "colorize",
    "encoded",
    "explanation_panel",
    "grid",
    "interval_plot",
    "legend",
    "line_plot",
    "mask_overlay",
    "overlay",
    "panel",
    "positive_heatmap",
    "share_heat",
    "share_overlay",
    "share_panel",
    "signed_heatmap",
    "stacked",
    "strip",
    "to_display_range",
    "to_pil",
]
