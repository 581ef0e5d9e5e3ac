"""What is left of probabilities when a model sees only what maps show, means over images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.functional.average_drop import (
    explained_drop,
    explained_gain,
    explained_increase,
)
from libragrad_lightning.metrics.sample_mean import SampleMean

if TYPE_CHECKING:
    from torch import Tensor


class ExplainedProbability(SampleMean):
    """A mean over images of a value in [0, 1] that two probabilities have."""

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def update(self, probability: Tensor, explained_probability: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            probability: Of the explained class for the images [B], any floating point type.
            explained_probability: For the images seen through their maps [B].
        """
        self._add(self._values(probability, explained_probability))

    def _values(self, probability: Tensor, explained_probability: Tensor) -> Tensor:
        raise NotImplementedError


class AverageDrop(ExplainedProbability):
    r"""Which part of the probability is lost when only what a map shows is seen (lower is better).

    .. math:: \frac{1}{N} \sum_n \frac{\max(0, p_n - o_n)}{p_n}

    As input to ``forward`` and ``update`` the metric accepts:

    - ``probability``: of the explained class for the images [B], any floating point type.
    - ``explained_probability``: for the images seen through their maps [B], for instance multiplied
      by heatmaps that were brought to [0, 1].

    As output of ``forward`` and ``compute`` it returns a scalar in [0, 1], NaN without a valid
    sample. A map that shows everything has none; read it beside `AverageGain`.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong, or a value is outside of [0, 1].

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import AverageDrop
        >>> AverageDrop()(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])).item()
        0.25

    Source:
        Chattopadhay et al., Grad-CAM++ (WACV 2018).
    """

    higher_is_better: bool = False
    total_name = "explained_drop"

    def _values(self, probability: Tensor, explained_probability: Tensor) -> Tensor:
        return explained_drop(probability, explained_probability)


class AverageGain(ExplainedProbability):
    r"""Which part of what a probability lacks is gained when only a map's part is seen.

    .. math:: \frac{1}{N} \sum_n \frac{\max(0, o_n - p_n)}{1 - p_n}

    Inputs, output and errors are those of `AverageDrop`; higher is better.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import AverageGain
        >>> AverageGain()(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])).item()
        0.25

    Source:
        Zhang et al., Opti-CAM: Optimizing Saliency Maps for Interpretability (CVIU 2024).
    """

    higher_is_better: bool = True
    total_name = "explained_gain"

    def _values(self, probability: Tensor, explained_probability: Tensor) -> Tensor:
        return explained_gain(probability, explained_probability)


class AverageIncrease(ExplainedProbability):
    """Share of the images whose probability is higher when only what a map shows is seen.

    Inputs, output and errors are those of `AverageDrop`; higher is better.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import AverageIncrease
        >>> AverageIncrease()(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])).item()
        0.5

    Source:
        Chattopadhay et al., Grad-CAM++ (WACV 2018).
    """

    higher_is_better: bool = True
    total_name = "explained_increase"

    def _values(self, probability: Tensor, explained_probability: Tensor) -> Tensor:
        return explained_increase(probability, explained_probability)
