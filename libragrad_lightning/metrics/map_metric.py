"""What metrics of maps beside masks have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libragrad_lightning.metrics.functional.maps import is_constant
from libragrad_lightning.metrics.sample_mean import SampleMean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class MapMetric(SampleMean):
    """Mean over images of a value in [0, 1] that a map has beside a mask; higher is better.

    With several masks per image, an image's value is the mean over those that have a pixel that
    counts; masks without one may fill up a batch.

    Args:
        shape: Shape of one image's value, ``()`` for a scalar.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Attributes:
        num_skipped: State: number of images left out because no pixel of a mask counts.
        num_constant: State: number of images left out because the map has the same value
            everywhere. Its score would say something about the mask alone.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    num_skipped: Tensor
    num_constant: Tensor

    def __init__(self, shape: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(shape, **kwargs)
        self.add_count("num_skipped")
        self.add_count("num_constant")

    def update(self, attribution: Tensor, mask: Tensor, ignore: Tensor | None = None) -> None:
        """Add the images of one batch.

        Args:
            attribution: Signed maps [B, H, W], any floating point type.
            mask: Pixels of the object [B, H, W], or of M objects per image [B, M, H, W]; boolean.
            ignore: Pixels to leave out, [B, H, W] or shaped like ``mask``, boolean; all pixels
                count by default.
        """
        values = self._values(attribution, mask, ignore)
        if mask.ndim == 4:
            values = values.nanmean(dim=1)
        self._add(
            values,
            num_skipped=~has_object(mask, ignore),
            num_constant=is_constant(attribution, ignore),
        )

    def _values(self, attribution: Tensor, mask: Tensor, ignore: Tensor | None) -> Tensor:
        """Return the values [B, *shape] or [B, M, *shape] of maps and masks."""
        raise NotImplementedError


def has_object(mask: Tensor, ignore: Tensor | None) -> Tensor:
    """Tell for which images any pixel of a mask counts.

    Args:
        mask: Pixels of the object [B, H, W], or of M objects per image [B, M, H, W]; boolean.
        ignore: Pixels to leave out, [B, H, W] or shaped like ``mask``, boolean; None for none.

    Returns:
        Flags [B], boolean.
    """
    if ignore is None:
        return mask.flatten(1).any(dim=1)
    if ignore.ndim < mask.ndim:
        ignore = ignore[:, None]
    return (mask & ~ignore).flatten(1).any(dim=1)
