"""Faithfulness as the distance between the two orders of deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.deletion import DeletionMetric
from libragrad_lightning.metrics.functional.deletion import symmetric_relevance_gain

if TYPE_CHECKING:
    from torch import Tensor


class SymmetricRelevanceGain(DeletionMetric):
    r"""SRG: mean over the levels of accuracy under LIF minus accuracy under MIF deletion.

    .. math:: \frac{1}{S} \sum_s \left( \text{Accuracy}^{\text{LIF}}_s
                                      - \text{Accuracy}^{\text{MIF}}_s \right)

    A random ranking scores 0 on average: neither end of it is a better place to start deleting.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``mif_logits``: logits after deleting the most influential tokens first [B, S, C].
    - ``lif_logits``: logits after deleting as many of the least influential first [B, S, C].
    - ``target``: class indices [B]: labels, or the classes predicted on the intact images.

    As output of ``forward`` and ``compute`` it returns a scalar in [-1, 1], NaN without a valid
    sample; ``curve()`` gives the value at every level, [S].

    Args:
        num_levels: Number S of deletion levels.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument, a shape, a type or a class index is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import SymmetricRelevanceGain
        >>> mif_logits = torch.tensor([[[3.0, 1.0], [0.0, 2.0]]])
        >>> lif_logits = torch.tensor([[[3.0, 1.0], [2.0, 1.0]]])
        >>> SymmetricRelevanceGain(num_levels=2)(mif_logits, lif_logits, torch.tensor([0])).item()
        0.5

    Source:
        Blücher et al., Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI
        Benchmarks (TMLR 2024), with accuracy as the score.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0
    total_name = "relevance_gain"

    def update(self, mif_logits: Tensor, lif_logits: Tensor, target: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            mif_logits: Logits after deleting the most influential first [B, S, C].
            lif_logits: Logits after deleting as many of the least influential first [B, S, C].
            target: Class indices [B], an integer type.
        """
        self._add(symmetric_relevance_gain(mif_logits, lif_logits, target))
