"""Faithfulness as the target's loss of probability under deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.deletion import DeletionMetric
from libragrad_lightning.metrics.functional.deletion import (
    deletion_log_odds_drop,
    deletion_probability_drop,
)

if TYPE_CHECKING:
    from torch import Tensor


class AOPC(DeletionMetric):
    r"""Area over the perturbation curve: mean drop of the target's probability.

    .. math:: \frac{1}{S} \sum_s \frac{1}{N} \sum_n
              \left( p_{y_n}(\text{intact}) - p_{y_n}(\text{masked at level } s) \right)

    Higher is better with the most influential tokens deleted first (MIF), where the value is also
    known as comprehensiveness. With the least influential first it is known as sufficiency, and
    lower is better.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``logits``: logits of the intact images [B, C], any floating point type.
    - ``masked_logits``: logits after deletion [B, S, C], any floating point type.
    - ``target``: class indices [B]: labels, or the classes predicted on the intact images.

    As output of ``forward`` and ``compute`` it returns a scalar in [-1, 1], NaN without a valid
    sample; ``curve()`` gives the value at every level, [S].

    Args:
        num_levels: Number S of deletion levels.
        task: How to read the logits: ``"multiclass"``, ``"binary"`` (one logit, target 0 or 1) or
            ``"multilabel"`` (one sigmoid per logit).
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument, a shape, a type or a class index is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import AOPC
        >>> logits = torch.tensor([[0.9, 0.1]]).log()
        >>> masked_logits = torch.tensor([[[0.7, 0.3], [0.2, 0.8]]]).log()
        >>> AOPC(num_levels=2)(logits, masked_logits, torch.tensor([0])).float()
        tensor(0.4500)

    Source:
        Samek et al., Evaluating the Visualization of What a Deep Neural Network Has Learned (2017);
        LibraGrad (Mehri et al., CVPR 2025), section 4.1.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0
    total_name = "probability_drop"

    def update(self, logits: Tensor, masked_logits: Tensor, target: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            logits: Logits of the intact images [B, C], any floating point type.
            masked_logits: Logits after deletion [B, S, C], any floating point type.
            target: Class indices [B], an integer type.
        """
        self._add(deletion_probability_drop(logits, masked_logits, target, self.task))


class LogOddsDrop(DeletionMetric):
    r"""Mean drop of the target's log-probability, named log-odds in the literature.

    .. math:: \frac{1}{S} \sum_s \frac{1}{N} \sum_n
              \left( \log p_{y_n}(\text{intact}) - \log p_{y_n}(\text{masked at level } s) \right)

    Higher is better with the most influential tokens deleted first (MIF), lower with the least
    influential first.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``logits``: logits of the intact images [B, C], any floating point type.
    - ``masked_logits``: logits after deletion [B, S, C], any floating point type.
    - ``target``: class indices [B]: labels, or the classes predicted on the intact images.

    As output of ``forward`` and ``compute`` it returns a scalar in nats, NaN without a valid
    sample; ``curve()`` gives the value at every level, [S].

    Args:
        num_levels: Number S of deletion levels.
        task: How to read the logits: ``"multiclass"``, ``"binary"`` (one logit, target 0 or 1) or
            ``"multilabel"`` (one sigmoid per logit).
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument, a shape, a type or a class index is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import LogOddsDrop
        >>> logits = torch.tensor([[0.8, 0.2]]).log()
        >>> masked_logits = torch.tensor([[[0.8, 0.2], [0.4, 0.6]]]).log()
        >>> LogOddsDrop(num_levels=2)(logits, masked_logits, torch.tensor([0])).float()
        tensor(0.3466)

    Source:
        LibraGrad (Mehri et al., CVPR 2025), section 4.1.
    """

    higher_is_better: bool = True
    total_name = "log_odds_drop"

    def update(self, logits: Tensor, masked_logits: Tensor, target: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            logits: Logits of the intact images [B, C], any floating point type.
            masked_logits: Logits after deletion [B, S, C], any floating point type.
            target: Class indices [B], an integer type.
        """
        self._add(deletion_log_odds_drop(logits, masked_logits, target, self.task))
