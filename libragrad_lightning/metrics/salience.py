"""Faithfulness of how much more salient a map calls one group of patches than another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.functional.salience import salience_coefficient
from libragrad_lightning.metrics.sample_mean import SampleMean

if TYPE_CHECKING:
    from torch import Tensor


class SaCo(SampleMean):
    """The salience-guided faithfulness coefficient, mean over samples.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``salience``: what attributions of K groups of patches add up to [B, K], the most salient
      group first, as `libragrad_lightning.perturbation.group_logits` gives them.
    - ``drops``: by how much the target's probability, or another score, drops without each [B, K].

    As output of ``forward`` and ``compute`` it returns a scalar in [-1, 1], NaN without a valid
    sample. A map that knows nothing scores 0 on average.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import SaCo
        >>> salience, drops = torch.tensor([[3.0, 2.0, 0.0]]), torch.tensor([[0.5, 0.3, 0.1]])
        >>> SaCo()(salience, drops).item()
        1.0

    Source:
        Wu et al., On the Faithfulness of Vision Transformer Explanations (CVPR 2024), algorithm 1.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0
    total_name = "salience_coefficient"

    def update(self, salience: Tensor, drops: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            salience: What attributions of each group add up to [B, K].
            drops: By how much the score of the target drops without each group [B, K].
        """
        self._add(salience_coefficient(salience, drops))
