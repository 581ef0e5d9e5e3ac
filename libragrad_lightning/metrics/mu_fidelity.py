"""Correlation of what maps give to sets of patches with what the score loses without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.functional.mu_fidelity import mu_fidelity
from libragrad_lightning.metrics.sample_mean import SampleMean

if TYPE_CHECKING:
    from torch import Tensor


class MuFidelity(SampleMean):
    """Correlation of a map's sums over sets of patches with drops of the score, mean over samples.

    The correlation is Pearson's, as in the paper; Xplique takes Spearman's.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``salience``: what attributions of R sets of equally many patches add up to [B, R], as
      `libragrad_lightning.perturbation.subset_logits` gives them.
    - ``drops``: by how much the target's probability, or another score, drops without each [B, R].

    As output of ``forward`` and ``compute`` it returns a scalar in [-1, 1], NaN without a valid
    sample. A map that knows nothing scores 0 on average; one that is constant, or beside scores
    that never drop, has no correlation and counts as invalid.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import MuFidelity
        >>> salience, drops = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[0.3, 0.5, 0.1]])
        >>> round(MuFidelity()(salience, drops).item(), 3)
        0.5

    Source:
        Bhatt et al., Evaluating and Aggregating Feature-based Model Explanations (IJCAI 2020),
        definition 3.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0
    total_name = "mu_fidelity"

    def update(self, salience: Tensor, drops: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            salience: What attributions of each set add up to [B, R].
            drops: By how much the score of the target drops without each set [B, R].
        """
        self._add(mu_fidelity(salience, drops))
