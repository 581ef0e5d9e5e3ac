"""Faithfulness as the distance between the two orders of deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libragrad_lightning.metrics.deletion import DeletionMetric
from libragrad_lightning.metrics.functional.checks import check_member
from libragrad_lightning.metrics.functional.deletion import symmetric_relevance_gain
from libragrad_lightning.metrics.functional.scores import SCORES

if TYPE_CHECKING:
    from torch import Tensor

    from libragrad_lightning.metrics.functional.scores import Score, Task


class SymmetricRelevanceGain(DeletionMetric):
    r"""SRG: mean over the levels of the target's score under LIF minus that under MIF deletion.

    .. math:: \frac{1}{S} \sum_s \frac{1}{N} \sum_n \left( f_{y_n}(z^{\text{LIF}}_{n,s})
                                                     - f_{y_n}(z^{\text{MIF}}_{n,s}) \right)

    The score f is by default the accuracy: 1 where the target is predicted, else 0.

    A random ranking scores 0 on average: neither end of it is a better place to start deleting.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``mif_logits``: logits after deleting the most influential tokens first [B, S, C].
    - ``lif_logits``: logits after deleting as many of the least influential first [B, S, C].
    - ``target``: class indices [B]: labels, or the classes predicted on the intact images.

    As output of ``forward`` and ``compute`` it returns a scalar, NaN without a valid sample, in
    [-1, 1] for accuracy and probability; ``curve()`` gives the value at every level, [S].

    Args:
        num_levels: Number S of deletion levels.
        task: How to read the logits: ``"multiclass"``, ``"binary"`` (one logit, target 0 or 1) or
            ``"multilabel"`` (one sigmoid per logit).
        score: The score of the target: ``"accuracy"``, ``"probability"``, ``"log_probability"`` or
            ``"logit"``.
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
        Benchmarks (TMLR 2024).
    """

    higher_is_better: bool = True
    total_name = "relevance_gain"

    def __init__(
        self,
        num_levels: int,
        task: Task = "multiclass",
        score: Score = "accuracy",
        **kwargs: Any,
    ) -> None:
        check_member("score", score, tuple(SCORES))
        super().__init__(num_levels, task, **kwargs)
        self.score: Score = score
        if score in ("accuracy", "probability"):
            # Metric forbids to assign what is an attribute of the class.
            vars(self).update(plot_lower_bound=-1.0, plot_upper_bound=1.0)

    def update(self, mif_logits: Tensor, lif_logits: Tensor, target: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            mif_logits: Logits after deleting the most influential first [B, S, C].
            lif_logits: Logits after deleting as many of the least influential first [B, S, C].
            target: Class indices [B], an integer type.
        """
        gain = symmetric_relevance_gain(mif_logits, lif_logits, target, self.task, self.score)
        self._add(gain)
