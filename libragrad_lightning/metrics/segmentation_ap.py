"""Localization metrics without a threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from libragrad_lightning.metrics.functional.segmentation_ap import segmentation_max_f1
from libragrad_lightning.metrics.functional.segmentation_curve import precision_and_average
from libragrad_lightning.metrics.map_metric import MapMetric

if TYPE_CHECKING:
    from typing import Any, ClassVar

    from torch import Tensor


class SegmentationAP(MapMetric):
    r"""Average precision of maps as detectors of the object's pixels, averaged over images.

    .. math:: \frac{1}{N} \sum_n \sum_k (R_{n,k} - R_{n,k-1}) \, P_{n,k}

    with precision :math:`P_{n,k}` and recall :math:`R_{n,k}` of the pixels of image n at or above
    its k-th largest distinct attribution. Left out and counted are images without a pixel of the
    object that counts (state ``num_skipped``), constant maps (``num_constant``) and maps with a
    non-finite value (``num_invalid``).

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: signed maps [B, H, W], any floating point type.
    - ``mask``: pixels of the object [B, H, W], or of M objects per image [B, M, H, W], of which an
      image's value is the mean; boolean.
    - ``ignore``: pixels to leave out, [B, H, W] or shaped like ``mask``, boolean, optional.

    As output of ``forward`` and ``compute`` it returns a scalar in [0, 1], NaN without a valid
    image; ``curve()`` gives the mean precision at each of the ``recalls``, whose mean is near the
    value. Any map scores 1 on a mask that is full.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import SegmentationAP
        >>> attribution = torch.tensor([[[0.9, 0.1], [0.8, -0.3]], [[0.5, 0.2], [0.1, 0.0]]])
        >>> mask = torch.tensor([[[True, True], [False, False]], [[False, False], [False, False]]])
        >>> metric = SegmentationAP()
        >>> metric(attribution, mask).float()
        tensor(0.8333)
        >>> metric.num_skipped.item()
        1

    Source:
        LibraGrad (Mehri et al., CVPR 2025), section 4, which counts ignored pixels as background.
    """

    total_name = "average_precision"
    recalls: ClassVar[tuple[float, ...]] = tuple((2 * i + 1) / 40 for i in range(20))
    """Where the curve has its points: the middles of twenty parts of the range from 0 to 1."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__((1 + len(self.recalls),), **kwargs)

    def statistic(self, mean: Tensor) -> Tensor:
        """Return the first entry of means over images [R, 1 + S], the average precision: [R]."""
        return mean[:, 0]

    def curve(self) -> Tensor:
        """Return the mean precision over images at each of the S ``recalls``, [S].

        Like ``compute``, it gathers the states of all processes, so every process has to call it.
        """
        with self._gathered():
            return self._mean()[1:]

    def _values(self, attribution: Tensor, mask: Tensor, ignore: Tensor | None) -> Tensor:
        average, precision = precision_and_average(attribution, mask, ignore, self.recalls)
        return torch.cat([average[..., None], precision], dim=-1)


class SegmentationMaxF1(MapMetric):
    r"""Largest F1 score over all thresholds on a map, averaged over images.

    .. math:: \frac{1}{N} \sum_n \max_k \frac{2 \, P_{n,k} R_{n,k}}{P_{n,k} + R_{n,k}}

    Left out and counted are images without a pixel of the object that counts (state
    ``num_skipped``), constant maps (``num_constant``) and maps with a non-finite value
    (``num_invalid``).

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
        >>> from libragrad_lightning.metrics import SegmentationMaxF1
        >>> attribution = torch.tensor([[[0.9, 0.1], [0.8, -0.3]]])
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> SegmentationMaxF1()(attribution, mask).float()
        tensor(0.8000)
    """

    total_name = "max_f1"

    def _values(self, attribution: Tensor, mask: Tensor, ignore: Tensor | None) -> Tensor:
        return segmentation_max_f1(attribution, mask, ignore)
