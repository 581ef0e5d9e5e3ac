"""Segmentation metrics of maps that their mean cuts into foreground and background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libragrad_lightning.metrics.functional.segmentation import (
    mask_confusion,
    mean_iou,
    pixel_accuracy,
)
from libragrad_lightning.metrics.map_metric import MapMetric

if TYPE_CHECKING:
    from torch import Tensor


class MaskConfusion(MapMetric):
    """Pixels counted by true and predicted class over all images; the base of the metrics below.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.
    """

    total_name = "confusion"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__((2, 2), **kwargs)

    def _values(self, attribution: Tensor, mask: Tensor, ignore: Tensor | None) -> Tensor:
        return mask_confusion(attribution, mask, ignore)


class MaskIoU(MaskConfusion):
    r"""Intersection over union of maps cut at their mean, averaged over background and foreground.

    .. math:: \frac{1}{2} \sum_c \frac{n_{cc}}{\sum_j n_{cj} + \sum_i n_{ic} - n_{cc}}

    with :math:`n_{ij}` the number of pixels of class i that are predicted to be of class j, over
    all images. Left out and counted are images without a pixel of the object that counts (state
    ``num_skipped``), constant maps (``num_constant``) and maps with a non-finite value
    (``num_invalid``).

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: signed maps [B, H, W], any floating point type.
    - ``mask``: pixels of the object [B, H, W], or of M objects per image [B, M, H, W], over which
      an image's numbers are averaged; boolean.
    - ``ignore``: pixels to leave out, [B, H, W] or shaped like ``mask``, boolean, optional.

    As output of ``forward`` and ``compute`` it returns a scalar in [0, 1], NaN without a valid
    image.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import MaskIoU
        >>> attribution = torch.tensor([[[0.9, 0.1], [0.8, -0.3]]])
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> MaskIoU()(attribution, mask).float()
        tensor(0.3333)

    Source:
        Chefer et al., Transformer Interpretability Beyond Attention Visualization (CVPR 2021),
        section 4, "segmentation".
    """

    def statistic(self, mean: Tensor) -> Tensor:
        """Return the values for mean numbers of pixels [R, 2, 2]: [R]."""
        return mean_iou(mean)


class PixelAccuracy(MaskConfusion):
    r"""Share of the pixels of all images that maps cut at their mean put on the right side.

    .. math:: \sum_c n_{cc} \, / \sum_{i,j} n_{ij}

    with :math:`n_{ij}` the number of pixels of class i that are predicted to be of class j, over
    all images. Left out and counted are images without a pixel of the object that counts (state
    ``num_skipped``), constant maps (``num_constant``) and maps with a non-finite value
    (``num_invalid``).

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: signed maps [B, H, W], any floating point type.
    - ``mask``: pixels of the object [B, H, W], or of M objects per image [B, M, H, W], over which
      an image's numbers are averaged; boolean.
    - ``ignore``: pixels to leave out, [B, H, W] or shaped like ``mask``, boolean, optional.

    As output of ``forward`` and ``compute`` it returns a scalar in [0, 1], NaN without a valid
    image.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import PixelAccuracy
        >>> attribution = torch.tensor([[[0.9, 0.1], [0.8, -0.3]]])
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> PixelAccuracy()(attribution, mask).item()
        0.5

    Source:
        Chefer et al., Transformer Interpretability Beyond Attention Visualization (CVPR 2021),
        section 4, "segmentation".
    """

    def statistic(self, mean: Tensor) -> Tensor:
        """Return the values for mean numbers of pixels [R, 2, 2]: [R]."""
        return pixel_accuracy(mean)
