"""Localization metrics of a map's maximum and of its mass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libragrad_lightning.metrics.functional.localization import (
    check_tolerance,
    energy_inside,
    pointing_hits,
)
from libragrad_lightning.metrics.map_metric import MapMetric

if TYPE_CHECKING:
    from torch import Tensor


class PointingGame(MapMetric):
    """Share of the maps whose maximum lies on the object.

    Of several pixels that share the maximum, the share that lies on the object counts. Left out and
    counted are images without a pixel of the object that counts (state ``num_skipped``), constant
    maps (``num_constant``) and maps with a non-finite value (``num_invalid``).

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: signed maps [B, H, W], any floating point type.
    - ``mask``: pixels of the object [B, H, W], or of M objects per image [B, M, H, W], of which an
      image's value is the mean; boolean. To hit any of several objects, give their union.
    - ``ignore``: pixels to leave out, [B, H, W] or shaped like ``mask``, boolean, optional.

    As output of ``forward`` and ``compute`` it returns a scalar in [0, 1], NaN without a valid
    image.

    Args:
        tolerance: Distance in pixels up to which a maximum beside the object is a hit.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument, a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import PointingGame
        >>> attribution = torch.tensor([[[0.1, 0.9], [0.8, -0.3]], [[0.1, 0.2], [0.8, -0.3]]])
        >>> mask = torch.tensor([[True, True], [False, False]]).expand(2, 2, 2)
        >>> PointingGame()(attribution, mask).item()
        0.5

    Source:
        Zhang et al., Top-Down Neural Attention by Excitation Backprop (IJCV 2018), section 4.1,
        where the tolerance is 15 pixels.
    """

    total_name = "hits"

    def __init__(self, tolerance: int = 0, **kwargs: Any) -> None:
        check_tolerance(tolerance)
        super().__init__(**kwargs)
        self.tolerance = tolerance

    def _values(self, attribution: Tensor, mask: Tensor, ignore: Tensor | None) -> Tensor:
        return pointing_hits(attribution, mask, ignore, self.tolerance)


class EnergyInside(MapMetric):
    r"""Share of a map's positive attribution that lies on the object, averaged over images.

    .. math:: \frac{1}{N} \sum_n
              \frac{\sum_{i \in \text{mask}_n} \max(a_{n,i}, 0)}{\sum_i \max(a_{n,i}, 0)}

    Also known as the energy-based pointing game. Left out and counted are images without a pixel
    of the object that counts (state ``num_skipped``), constant maps (``num_constant``), and maps
    with a non-finite value or without a positive one (``num_invalid``).

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: signed maps [B, H, W], any floating point type.
    - ``mask``: pixels of the object [B, H, W], or of M objects per image [B, M, H, W], of which an
      image's value is the mean; boolean.
    - ``ignore``: pixels to leave out, [B, H, W] or shaped like ``mask``, boolean, optional.

    As output of ``forward`` and ``compute`` it returns a scalar in [0, 1], NaN without a valid
    image.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import EnergyInside
        >>> attribution = torch.tensor([[[0.75, 0.0], [0.25, -0.5]]])
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> EnergyInside()(attribution, mask).item()
        0.75

    Source:
        Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural
        Networks (CVPR Workshops 2020), section 4.3.
    """

    total_name = "energy"

    def _values(self, attribution: Tensor, mask: Tensor, ignore: Tensor | None) -> Tensor:
        return energy_inside(attribution, mask, ignore)
