"""A map over time: small pictures of all audits that are shown, one rule set below the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from libragrad_lightning.heatmaps.panel import PanelColumn, grid
from libragrad_lightning.heatmaps.share_panel import color_bar, share_overlay, sharp_column
from libragrad_lightning.placement import Placement

_COLUMNS = 4
_SIZE = 96
"""Of a picture, in pixels: four beside each other are as wide as loggers show one."""
_FONT = 15


@dataclass(frozen=True)
class StripMoment:
    """The maps of an image at one time.

    Attributes:
        title: When it was, and what was explained.
        maps: Signed maps [h, w], by rule set.
        placement: Where their patches lie in the image; by default they divide it evenly.
    """

    title: str
    maps: Mapping[str, Tensor]
    placement: Placement = Placement()


def strip(image: Tensor, moments: Sequence[StripMoment], caption: str | None = None) -> Tensor:
    """Compose the maps of an image at several times, on the scale of `share_heat`.

    Args:
        image: Image [3, H, W], uint8, or floating point in [0, 1].
        moments: The times, oldest first; four stand beside each other.
        caption: Text below the pictures.

    Returns:
        The strip [3, Hs, Ws], uint8, on the CPU.

    Raises:
        ValueError: If there is no moment, or ``image`` or a map has another shape.
    """
    shown = sharp_column("", image, _SIZE)
    rows = []
    for start in range(0, len(moments), _COLUMNS):
        line = moments[start : start + _COLUMNS]
        for place, rules in enumerate(line[0].maps):
            titles = [rules if place else f"{moment.title}\n{rules}" for moment in line]
            pictures = [share_overlay(shown.image, m.maps[rules], m.placement) for m in line]
            rows.append([PanelColumn(*cell) for cell in zip(titles, pictures, strict=True)])
    if rows:
        width = min(len(moments), _COLUMNS) * max(shown.image.shape[2], 80)
        rows.append([PanelColumn("", color_bar(max(width, 200), _FONT))])
    return grid(rows, caption, _FONT)
