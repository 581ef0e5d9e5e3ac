"""Completeness metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libragrad_lightning.metrics.functional.checks import check_layout, check_positive_integer
from libragrad_lightning.metrics.functional.completeness import (
    completeness_error,
    relative_completeness_error,
)
from libragrad_lightning.metrics.sample_mean import SampleMean

if TYPE_CHECKING:
    from torch import Tensor


class CompletenessMetric(SampleMean):
    """Mean over samples, and over blocks where there are several; the base of the errors below.

    Args:
        num_blocks: Number L of blocks whose attributions are each to add up to the logit; without
            it, there is one total per sample.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``num_blocks`` is not a positive integer.
    """

    higher_is_better: bool = False
    plot_lower_bound: float = 0.0

    def __init__(self, num_blocks: int | None = None, **kwargs: Any) -> None:
        if num_blocks is not None:
            check_positive_integer("num_blocks", num_blocks)
        super().__init__(() if num_blocks is None else (num_blocks,), **kwargs)
        self.num_blocks = num_blocks

    def per_block(self) -> Tensor:
        """Return the mean over samples for each block [L], or the only one [].

        Like ``compute``, it gathers the states of all processes, so every process has to call it.
        """
        with self._gathered():
            return self._mean()

    def _check_blocks(self, attribution_total: Tensor) -> None:
        if self.num_blocks is None:
            check_layout("attribution_total", attribution_total, "[B]")
            return
        check_layout("attribution_total", attribution_total, "[L, B]")
        if len(attribution_total) != self.num_blocks:
            raise ValueError(
                f"Expected argument `attribution_total` to hold {self.num_blocks} blocks, as"
                f" argument `num_blocks` says, but got {len(attribution_total)}."
            )


class CompletenessError(CompletenessMetric):
    r"""Mean distance between the sum of a sample's attributions and the explained logit.

    .. math:: \frac{1}{N} \sum_n \Big| \sum_i A_{n,i} - z_n \Big|

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution_total``: sum of all attributions of a sample, prefix tokens and biases
      included, in units of the logit: [B], or [L, B] for L blocks; any floating point type.
    - ``logit``: the explained logit [B], any floating point type.

    As output of ``forward`` and ``compute`` it returns a non-negative scalar in units of the
    logit, NaN without a valid sample; ``per_block()`` gives the mean of each block, [L].

    Args:
        num_blocks: Number L of blocks whose attributions are each to add up to the logit; without
            it, there is one total per sample.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument, a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import CompletenessError
        >>> CompletenessError()(torch.tensor([2.0, 5.0]), torch.tensor([2.0, 4.0])).item()
        0.5

    Source:
        LibraGrad (Mehri et al., CVPR 2025), equation 1.
    """

    total_name = "absolute_error"

    def update(self, attribution_total: Tensor, logit: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            attribution_total: Sum of all attributions of a sample [B], or of each block [L, B].
            logit: The explained logit [B].
        """
        self._check_blocks(attribution_total)
        self._add(completeness_error(attribution_total, logit).movedim(-1, 0))


class RelativeCompletenessError(CompletenessMetric):
    r"""Mean completeness error as a fraction of the logit's size.

    .. math:: \frac{1}{N} \sum_n \Big| \sum_i A_{n,i} - z_n \Big| \, / \, |z_n|

    A sample whose logit is zero has no relative error and counts as invalid.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution_total``: sum of all attributions of a sample, prefix tokens and biases
      included, in units of the logit: [B], or [L, B] for L blocks; any floating point type.
    - ``logit``: the explained logit [B], any floating point type.

    As output of ``forward`` and ``compute`` it returns a non-negative scalar without unit, NaN
    without a valid sample; ``per_block()`` gives the mean of each block, [L].

    Args:
        num_blocks: Number L of blocks whose attributions are each to add up to the logit; without
            it, there is one total per sample.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument, a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import RelativeCompletenessError
        >>> RelativeCompletenessError()(torch.tensor([2.0, 5.0]), torch.tensor([2.0, 4.0])).item()
        0.125

    Source:
        LibraGrad (Mehri et al., CVPR 2025), equation 1, divided by the size of the logit.
    """

    total_name = "relative_error"

    def update(self, attribution_total: Tensor, logit: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            attribution_total: Sum of all attributions of a sample [B], or of each block [L, B].
            logit: The explained logit [B].
        """
        self._check_blocks(attribution_total)
        self._add(relative_completeness_error(attribution_total, logit).movedim(-1, 0))
