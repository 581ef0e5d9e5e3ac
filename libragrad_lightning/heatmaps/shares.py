"""Maps in one unit that all of them share: how many times as much as the average patch.

A panel of a run is drawn once, at its audit, beside earlier and later ones that it will be compared
with. What scale do they have in common?

- The map's own quantile or maximum, as figures of single maps have it, hides what is to be seen
  between audits: noise and a sharp map are equally bright.
- A scale in units of the map, fixed by the first audit, ends where maps grow: while a model learns,
  its log-odds grow tenfold, and everything is saturated. It depends on when the run began. Plain
  gradients, whose maps add up to nothing in particular, have another size than those of LibraGrad.
- The largest map so far changes the scale under the pictures that are drawn already.

So a patch is shown by its share of all that the map attributes, for and against, in units of the
average share: +2 means twice as much as the average patch, in favor. That is comparable between
audits, rule sets, images, runs, and the numbers of patches, needs no history, and is the same after
a run was resumed. A map in which nothing stands out is pale. What it leaves out, how much the map
attributes in all, is a number beside the picture.
"""

from __future__ import annotations

from torch import Tensor

from libragrad_lightning.heatmaps.render import resize_bicubic, zero_where_not_finite
from libragrad_lightning.placement import Placement

FULL = 8.0
"""Full color: so many times as much as the average patch. Of the maps of trained vision
transformers, about one patch in a hundred has more."""


def amount(attribution: Tensor) -> Tensor:
    """Return how much maps attribute in all, for and against: sums of sizes.

    Args:
        attribution: Signed maps [B, h, w].

    Returns:
        Sums [B], in units of what is explained; 0 for a map with a value that is not finite.
    """
    return zero_where_not_finite(attribution).abs().flatten(1).sum(1)


def share_heat(
    attribution: Tensor, size: tuple[int, int], placement: Placement = Placement()
) -> Tensor:
    """Render maps by the share of each patch, at display size.

    Args:
        attribution: Signed maps [B, h, w], of any floating-point type and scale.
        size: Height and width (H, W) of the display, in pixels.
        placement: Where the patches lie in the image; by default they divide it evenly.

    Returns:
        Heat [B, H, W], float32 in [-1, 1]: 1 is `FULL` times the average patch, in favor; zeros for
        a map with nothing in it, or with a value that is not finite.

    Raises:
        ValueError: If ``attribution`` is not [B, h, w], or ``size`` is not positive.
    """
    maps = zero_where_not_finite(attribution)
    average = amount(attribution) / maps[0].numel() if len(maps) else amount(attribution)
    unit = average.where(average > 0, 1.0)[:, None, None]
    # Clamped first, since no cubic sum of what is far beyond the scale would be finite.
    times = (maps / unit).float().clamp(-1e3, 1e3)
    return (resize_bicubic(times, size, placement) / FULL).clamp(-1, 1)
