"""Faithfulness to a regression as the relative loss of the explained output under deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.deletion import LevelMetric
from libragrad_lightning.metrics.functional.deletion import deletion_relative_drop

if TYPE_CHECKING:
    from torch import Tensor


class RelativeDrop(LevelMetric):
    r"""Mean drop of the explained output of a regression, as a fraction of its size.

    .. math:: \frac{1}{S} \sum_s \frac{1}{N} \sum_n
              \frac{f_{y_n}(\text{intact}) - f_{y_n}(\text{masked at level } s)}
                   {|f_{y_n}(\text{intact})|}

    Higher is better with the most influential tokens deleted first (MIF), lower with the least
    influential first (LIF). The ratio rests on where the zero of the output's scale is: targets
    that are standardized have it at their mean. A sample whose intact output is 0 has no relative
    drop and counts as invalid.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``output``: outputs for the intact images [B, C], any floating point type.
    - ``masked_output``: outputs after deletion [B, S, C], any floating point type.
    - ``target``: indices of the explained outputs [B]; not needed if C is 1.

    As output of ``forward`` and ``compute`` it returns a scalar without unit or bounds, NaN without
    a valid sample; ``curve()`` gives the value at every level, [S].

    Args:
        num_levels: Number S of deletion levels.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument, a shape, a type or an index is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import RelativeDrop
        >>> output = torch.tensor([[2.0], [-4.0]])
        >>> masked_output = torch.tensor([[[1.5], [0.5]], [[-4.0], [-6.0]]])
        >>> metric = RelativeDrop(num_levels=2)
        >>> metric(output, masked_output).item()
        0.375
        >>> metric.curve().tolist()
        [0.125, 0.625]

    Source:
        The area over the perturbation curve of Samek et al., Evaluating the Visualization of What a
        Deep Neural Network Has Learned (2017), in units of the explained output.
    """

    higher_is_better: bool = True
    total_name = "relative_drop"
    read = "outputs"

    def update(self, output: Tensor, masked_output: Tensor, target: Tensor | None = None) -> None:
        """Add the samples of one batch.

        Args:
            output: Outputs for the intact images [B, C], any floating point type.
            masked_output: Outputs after deletion [B, S, C], any floating point type.
            target: Indices of the explained outputs [B], an integer type; not needed if C is 1.
        """
        self._add(deletion_relative_drop(output, masked_output, target))
