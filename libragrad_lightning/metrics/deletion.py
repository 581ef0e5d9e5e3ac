"""Faithfulness metrics over deletion curves: their bases, and accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from libragrad_lightning.metrics.functional.checks import check_member, check_positive_integer
from libragrad_lightning.metrics.functional.deletion import deletion_accuracy_curve
from libragrad_lightning.metrics.functional.scores import TASKS
from libragrad_lightning.metrics.sample_mean import SampleCurve

if TYPE_CHECKING:
    from torch import Tensor

    from libragrad_lightning.metrics.functional.scores import Task


class LevelMetric(SampleCurve):
    """Mean over samples and deletion levels; the base of all metrics over deletion levels.

    Args:
        num_levels: Number S of deletion levels.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``num_levels`` is not a positive integer.
    """

    read: ClassVar[str] = "logits"
    """What the metric reads at the levels, for messages."""

    def __init__(self, num_levels: int, **kwargs: Any) -> None:
        check_positive_integer("num_levels", num_levels)
        super().__init__(num_levels, **kwargs)
        self.num_levels = num_levels

    def _add(self, values: Tensor, **left_out: Tensor) -> None:
        if values.shape[1] != self.num_levels:
            raise ValueError(
                f"Expected {self.read} at {self.num_levels} deletion levels, as argument"
                f" `num_levels` says, but got {values.shape[1]}."
            )
        super()._add(values, **left_out)


class DeletionMetric(LevelMetric):
    """Mean over samples and deletion levels; the base of the faithfulness metrics on logits.

    Args:
        num_levels: Number S of deletion levels.
        task: How to read the logits: ``"multiclass"``, ``"binary"`` (one logit, target 0 or 1) or
            ``"multilabel"`` (one sigmoid per logit).
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``num_levels`` is not a positive integer or the task is unknown.
    """

    def __init__(self, num_levels: int, task: Task = "multiclass", **kwargs: Any) -> None:
        check_member("task", task, TASKS)
        super().__init__(num_levels, **kwargs)
        self.task: Task = task


class DeletionAccuracy(DeletionMetric):
    r"""Accuracy kept under deletion, averaged over the levels (higher is better under LIF).

    .. math:: \frac{1}{S} \sum_s \frac{1}{N} \sum_n [\arg\max_c z_{n,s,c} = y_n]

    To be fed with the least influential tokens deleted first (LIF). For the most influential first
    (MIF) see ``DeletionAccuracyDrop``.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``masked_logits``: logits after deletion [B, S, C], any floating point type.
    - ``target``: class indices [B]: labels, or the classes predicted on the intact images.

    As output of ``forward`` and ``compute`` it returns a scalar in [0, 1], NaN without a valid
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
        >>> from libragrad_lightning.metrics import DeletionAccuracy
        >>> masked_logits = torch.tensor([[[3.0, 1.0], [0.0, 2.0]], [[2.0, 1.0], [2.0, 1.0]]])
        >>> metric = DeletionAccuracy(num_levels=2)
        >>> metric(masked_logits, torch.tensor([0, 0])).item()
        0.75
        >>> metric.curve().tolist()
        [1.0, 0.5]

    Source:
        LibraGrad (Mehri et al., CVPR 2025), section 4.1.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0
    total_name = "correct"

    def update(self, masked_logits: Tensor, target: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            masked_logits: Logits after deletion [B, S, C], any floating point type.
            target: Class indices [B], an integer type.
        """
        self._add(deletion_accuracy_curve(masked_logits, target, self.task))


class DeletionAccuracyDrop(DeletionMetric):
    r"""Accuracy lost under deletion, averaged over the levels (higher is better under MIF).

    .. math:: 1 - \frac{1}{S} \sum_s \frac{1}{N} \sum_n [\arg\max_c z_{n,s,c} = y_n]

    To be fed with the most influential tokens deleted first (MIF); this is what the paper's tables
    call MIF accuracy. The loss is counted from an accuracy of 1, which the intact images have only
    if the targets are their predicted classes.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``masked_logits``: logits after deletion [B, S, C], any floating point type.
    - ``target``: class indices [B]: labels, or the classes predicted on the intact images.

    As output of ``forward`` and ``compute`` it returns a scalar in [0, 1], NaN without a valid
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
        >>> from libragrad_lightning.metrics import DeletionAccuracyDrop
        >>> masked_logits = torch.tensor([[[3.0, 1.0], [0.0, 2.0]], [[2.0, 1.0], [2.0, 1.0]]])
        >>> DeletionAccuracyDrop(num_levels=2)(masked_logits, torch.tensor([0, 0])).item()
        0.25

    Source:
        LibraGrad (Mehri et al., CVPR 2025), section 4.1.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0
    total_name = "incorrect"

    def update(self, masked_logits: Tensor, target: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            masked_logits: Logits after deletion [B, S, C], any floating point type.
            target: Class indices [B], an integer type.
        """
        self._add(1 - deletion_accuracy_curve(masked_logits, target, self.task))
