"""Localization by as many of the most relevant pixels as the object has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.functional.rank_accuracy import relevance_rank_accuracy
from libragrad_lightning.metrics.map_metric import MapMetric

if TYPE_CHECKING:
    from torch import Tensor


class RelevanceRankAccuracy(MapMetric):
    r"""Share of the K most relevant pixels that lie on an object of K pixels, mean over images.

    .. math:: \frac{1}{N} \sum_n
              \frac{|\text{top}_{K_n}(a_n) \cap \text{mask}_n|}{K_n}, \quad K_n = |\text{mask}_n|

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
        >>> from libragrad_lightning.metrics import RelevanceRankAccuracy
        >>> attribution = torch.tensor([[[0.9, 0.1], [0.8, -0.3]]])
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> RelevanceRankAccuracy()(attribution, mask).item()
        0.5

    Source:
        Arras et al., CLEVR-XAI: A Benchmark Dataset for the Ground Truth Evaluation of Neural
        Network Explanations (Information Fusion 2022).
    """

    total_name = "rank_accuracy"

    def _values(self, attribution: Tensor, mask: Tensor, ignore: Tensor | None) -> Tensor:
        return relevance_rank_accuracy(attribution, mask, ignore)
