"""Curves of a score over the fraction of an image that is deleted or inserted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.functional.checks import (
    check_floating_point,
    check_fractions,
    check_layout,
    check_shape,
)
from libragrad_lightning.metrics.functional.precision import accumulation_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def area_under_curve(scores: Tensor, fractions: Sequence[float]) -> Tensor:
    r"""Return the mean height of curves by the trapezoidal rule.

    .. math:: \frac{1}{\phi_S - \phi_1} \sum_s (\phi_{s+1} - \phi_s) \, \frac{f_s + f_{s+1}}{2}

    With fractions from 0 to 1 this is the area under the curve. Over a part of that range, the
    area is divided by the part's length, so that values stay on the scale of the score.

    Args:
        scores: Scores at S fractions [..., S], any floating point type.
        fractions: The S fractions that are deleted or inserted, rising, in [0, 1].

    Returns:
        Areas [...], float64 (float32 on devices without float64); NaN where a score is.

    Raises:
        ValueError: If the fractions are not rising numbers in [0, 1], or a shape or type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import area_under_curve
        >>> area_under_curve(torch.tensor([[1.0, 0.3, 0.0]]), [0.0, 0.5, 1.0]).float()
        tensor([0.4000])

    Source:
        Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models (BMVC
        2018), section 4.2.
    """
    places = check_fractions(fractions)
    check_floating_point("scores", scores)
    check_shape("scores", scores, (*scores.shape[:-1], len(places)), "fractions")
    wide = scores.to(accumulation_dtype(scores.device))
    widths = wide.new_tensor(places).diff()
    return (widths * (wide[..., 1:] + wide[..., :-1]) / 2).sum(dim=-1) / widths.sum()


def check_scores(argument: str, scores: Tensor, num_fractions: int) -> None:
    """Check the scores of a batch along a curve.

    Args:
        argument: Name of the argument, for the message.
        scores: Expected as [B, S], floating point, not empty.
        num_fractions: Number S of points of the curve.

    Raises:
        ValueError: If they are something else.
    """
    check_layout(argument, scores, "[B, S]")
    check_floating_point(argument, scores)
    check_shape(argument, scores, (len(scores), num_fractions), "fractions")
