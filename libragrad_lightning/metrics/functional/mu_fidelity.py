"""Whether what a map gives to sets of patches goes with what the score loses without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.functional.checks import (
    check_floating_point,
    check_layout,
    check_shape,
)
from libragrad_lightning.metrics.functional.correlation import row_correlation
from libragrad_lightning.metrics.functional.maps import is_constant, scaled_down
from libragrad_lightning.metrics.functional.precision import accumulation_dtype

if TYPE_CHECKING:
    from torch import Tensor


def mu_fidelity(salience: Tensor, drops: Tensor) -> Tensor:
    r"""Return the correlation of a map's sums over sets of patches with drops of the score.

    .. math:: \operatorname{corr}_S \left( \sum_{i \in S} a_i,
              f(x) - f(x_{S \leftarrow \text{baseline}}) \right)

    The correlation is Pearson's, as in the paper; Xplique takes Spearman's.

    Args:
        salience: What attributions of R sets of equally many patches add up to [B, R], any floating
            point type.
        drops: By how much the score of the target drops without each set [B, R].

    Returns:
        Values in [-1, 1], 0 on average for maps that know nothing; NaN where a value is not finite,
        or all sets have the same sum, or the same drop: [B], float64 (float32 on devices without
        float64).

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import mu_fidelity
        >>> salience = torch.tensor([[3.0, 2.0, 1.0]])
        >>> round(mu_fidelity(salience, torch.tensor([[0.5, 0.3, 0.1]])).item(), 3)
        1.0
        >>> round(mu_fidelity(salience, torch.tensor([[0.3, 0.5, 0.1]])).item(), 3)
        0.5

    Source:
        Bhatt et al., Evaluating and Aggregating Feature-based Model Explanations (IJCAI 2020),
        definition 3.
    """
    for name, values in (("salience", salience), ("drops", drops)):
        check_floating_point(name, values)
    check_layout("salience", salience, "[B, R]")
    check_shape("drops", drops, tuple(salience.shape), "salience")
    wide = accumulation_dtype(salience.device)
    found = row_correlation(scaled_down(salience.to(wide)), scaled_down(drops.to(wide)))
    known = (salience.isfinite() & drops.isfinite()).all(dim=1)
    constant = is_constant(salience) | is_constant(drops)
    return found.masked_fill(~known | constant, float("nan"))
