"""Whether what a map calls more salient matters more to the model, group by group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from libragrad_lightning.metrics.functional.checks import (
    check_floating_point,
    check_layout,
    check_shape,
)
from libragrad_lightning.metrics.functional.precision import accumulation_dtype

if TYPE_CHECKING:
    from torch import Tensor


def salience_coefficient(salience: Tensor, drops: Tensor) -> Tensor:
    r"""Return SaCo, the salience-guided faithfulness coefficient.

    .. math:: \frac{\sum_{i<j} \pm (s_i - s_j)}{\sum_{i<j} |s_i - s_j|}

    A pair of groups of patches counts with the difference of their salience: for the map if the
    more salient group, without which the prediction drops by :math:`d_i`, matters at least as much
    as the other one, :math:`d_i \ge d_j`, and against it if not. Metrics that only look at the
    order of patches do not see how much more salient a map calls one of them.

    Args:
        salience: What attributions of each group add up to [B, K], the most salient group first.
        drops: By how much the score of the target drops without each group [B, K].

    Returns:
        Coefficients in [-1, 1], 0 on average for maps that know nothing; NaN where a value is not
        finite or all groups are equally salient: [B], float64 (float32 on devices without float64).

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import salience_coefficient
        >>> salience = torch.tensor([[3.0, 2.0, 0.0]])
        >>> salience_coefficient(salience, torch.tensor([[0.5, 0.3, 0.1]])).item()
        1.0
        >>> round(salience_coefficient(salience, torch.tensor([[0.3, 0.5, 0.1]])).item(), 3)
        0.667

    Source:
        Wu et al., On the Faithfulness of Vision Transformer Explanations (CVPR 2024), algorithm 1.
    """
    for name, values in (("salience", salience), ("drops", drops)):
        check_floating_point(name, values)
    check_layout("salience", salience, "[B, K]")
    check_shape("drops", drops, tuple(salience.shape), "salience")
    wide = accumulation_dtype(salience.device)
    apart = salience.to(wide)[:, :, None] - salience.to(wide)[:, None]
    agree = drops[:, :, None] >= drops[:, None]
    count = salience.shape[1]
    first, second = torch.triu_indices(count, count, offset=1, device=apart.device)
    weights, agree = apart[:, first, second], agree[:, first, second]
    found = weights.where(agree, -weights).sum(1) / weights.abs().sum(1)
    known = (salience.isfinite() & drops.isfinite()).all(1)
    return found.where(known, torch.nan)
