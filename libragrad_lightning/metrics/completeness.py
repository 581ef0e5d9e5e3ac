"""Completeness metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.functional.completeness import (
    completeness_error,
    relative_completeness_error,
)
from libragrad_lightning.metrics.sample_mean import SampleMean

if TYPE_CHECKING:
    from torch import Tensor


class CompletenessError(SampleMean):
    r"""Mean distance between the sum of a sample's attributions and the explained logit.

    .. math:: \frac{1}{N} \sum_n \Big| \sum_i A_{n,i} - z_n \Big|

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution_total``: sum of all attributions of a sample, prefix tokens and biases
      included: [B], any floating point type, in units of the logit.
    - ``logit``: the explained logit [B], any floating point type.

    As output of ``forward`` and ``compute`` it returns a non-negative scalar in units of the
    logit, NaN without a valid sample.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import CompletenessError
        >>> CompletenessError()(torch.tensor([2.0, 5.0]), torch.tensor([2.0, 4.0])).item()
        0.5

    Source:
        LibraGrad (Mehri et al., CVPR 2025), equation 1.
    """

    higher_is_better: bool = False
    plot_lower_bound: float = 0.0
    total_name = "absolute_error"

    def update(self, attribution_total: Tensor, logit: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            attribution_total: Sum of all attributions of a sample [B].
            logit: The explained logit [B].
        """
        self._add(completeness_error(attribution_total, logit))


class RelativeCompletenessError(SampleMean):
    r"""Mean completeness error as a fraction of the logit's size.

    .. math:: \frac{1}{N} \sum_n \Big| \sum_i A_{n,i} - z_n \Big| \, / \, |z_n|

    A sample whose logit is zero has no relative error and counts as invalid.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution_total``: sum of all attributions of a sample, prefix tokens and biases
      included: [B], any floating point type, in units of the logit.
    - ``logit``: the explained logit [B], any floating point type.

    As output of ``forward`` and ``compute`` it returns a non-negative scalar without unit, NaN
    without a valid sample.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import RelativeCompletenessError
        >>> RelativeCompletenessError()(torch.tensor([2.0, 5.0]), torch.tensor([2.0, 4.0])).item()
        0.125

    Source:
        LibraGrad (Mehri et al., CVPR 2025), equation 1, divided by the size of the logit.
    """

    higher_is_better: bool = False
    plot_lower_bound: float = 0.0
    total_name = "relative_error"

    def update(self, attribution_total: Tensor, logit: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            attribution_total: Sum of all attributions of a sample [B].
            logit: The explained logit [B].
        """
        self._add(relative_completeness_error(attribution_total, logit))
