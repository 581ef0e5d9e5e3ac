"""Localisation metric against object masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from libragrad_lightning.metrics.functional.segmentation_ap import segmentation_average_precision
from libragrad_lightning.metrics.sample_mean import SampleMean

if TYPE_CHECKING:
    from torch import Tensor


class SegmentationAP(SampleMean):
    r"""Average precision of maps as detectors of the object's pixels, averaged over images.

    .. math:: \frac{1}{N} \sum_n \sum_k (R_{n,k} - R_{n,k-1}) \, P_{n,k}

    with precision :math:`P_{n,k}` and recall :math:`R_{n,k}` of the pixels of image n at or above
    its k-th largest distinct attribution. Images without a positive pixel pose no question: they
    are left out and counted in the state ``num_skipped``.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: signed maps [B, H, W], any floating point type.
    - ``mask``: pixels of the object [B, H, W], boolean.
    - ``ignore``: pixels to leave out [B, H, W], boolean, optional.

    As output of ``forward`` and ``compute`` it returns a scalar in [0, 1], NaN without a valid
    image. A constant map scores the fraction of its pixels that are positive.

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

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0
    total_name = "average_precision"

    num_skipped: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("num_skipped", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, attribution: Tensor, mask: Tensor, ignore: Tensor | None = None) -> None:
        """Add the images of one batch.

        Args:
            attribution: Signed maps [B, H, W], any floating point type.
            mask: Pixels of the object [B, H, W], boolean.
            ignore: Pixels to leave out [B, H, W], boolean; all pixels count by default.
        """
        precision = segmentation_average_precision(attribution, mask, ignore)
        positive = mask if ignore is None else mask & ~ignore
        has_positive = positive.flatten(1).any(dim=1)
        self.num_skipped = self.num_skipped + (~has_positive).sum()
        self._add(precision[has_positive])
