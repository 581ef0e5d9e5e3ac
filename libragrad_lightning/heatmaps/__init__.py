"""Heatmaps: from attribution maps to pictures.

Knows tensors and pictures only: no model, no trainer, no plotting backend.
"""

from libragrad_lightning.heatmaps.display import to_display_range
from libragrad_lightning.heatmaps.explanation import (
    PanelTarget,
    Style,
    explanation_panel,
    targets_panel,
)
from libragrad_lightning.heatmaps.panel import PanelColumn, grid, panel, stacked, to_pil
from libragrad_lightning.heatmaps.render import (
    colorize,
    mask_overlay,
    overlay,
    positive_heatmap,
    signed_heatmap,
)

__all__ = [
    "PanelColumn",
    "PanelTarget",
    "Style",
    "colorize",
    "explanation_panel",
    "grid",
    "mask_overlay",
    "overlay",
    "panel",
    "positive_heatmap",
    "signed_heatmap",
    "stacked",
    "targets_panel",
    "to_display_range",
    "to_pil",
]
