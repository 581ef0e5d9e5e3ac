"""Infidelity and sensitivity: do maps foretell what perturbations do, and do they stay?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.functional.checks import (
    check_floating_point,
    check_layout,
    check_shape,
)
from libragrad_lightning.metrics.functional.maps import check_maps
from libragrad_lightning.metrics.functional.precision import accumulation_dtype

if TYPE_CHECKING:
    from torch import Tensor


def infidelity(expected_change: Tensor, change: Tensor) -> Tensor:
    r"""Return by how much a map misses what perturbations of its image do to the score.

    .. math:: \frac{1}{R} \sum_r \left( I_r^\top a - \left( f(x) - f(x - I_r) \right) \right)^2

    Args:
        expected_change: The inner products of a map, in units of the score per unit of the input,
            with R perturbations [B, R], any floating point type.
        change: By how much the score falls if a perturbation is taken away from the image [B, R].

    Returns:
        Mean squares in units of the score squared [B], float64 (float32 on devices without
        float64); NaN where a value is not finite.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import infidelity
        >>> infidelity(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]])).tolist()
        [2.0]

    Source:
        Yeh et al., On the (In)fidelity and Sensitivity of Explanations (NeurIPS 2019), without
        scaling.
    """
    for name, values in (("expected_change", expected_change), ("change", change)):
        check_floating_point(name, values)
    check_layout("expected_change", expected_change, "[B, R]")
    check_shape("change", change, tuple(expected_change.shape), "expected_change")
    wide = accumulation_dtype(expected_change.device)
    found = (expected_change.to(wide) - change.to(wide)).square().mean(dim=1)
    return found.masked_fill(~found.isfinite(), float("nan"))


def max_sensitivity(attribution: Tensor, perturbed_attribution: Tensor) -> Tensor:
    r"""Return how far maps move, at most, when their image is perturbed a little.

    .. math:: \max_r \frac{\|a(x_r) - a(x)\|_2}{\|a(x)\|_2}

    Args:
        attribution: Maps [B, H, W], any floating point type.
        perturbed_attribution: Maps of R perturbed images each [B, R, H, W].

    Returns:
        Ratios of at least 0, [B], float64 (float32 on devices without float64); NaN where a map is
        not finite or zero everywhere.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import max_sensitivity
        >>> attribution = torch.tensor([[[3.0, 4.0]]])
        >>> max_sensitivity(attribution, torch.tensor([[[[3.0, 4.0]], [[3.0, 9.0]]]])).tolist()
        [1.0]

    Source:
        Yeh et al., On the (In)fidelity and Sensitivity of Explanations (NeurIPS 2019), as a share
        of the size of the map.
    """
    check_maps("attribution", attribution)
    check_layout("perturbed_attribution", perturbed_attribution, "[B, R, H, W]")
    check_floating_point("perturbed_attribution", perturbed_attribution)
    batch, draws = perturbed_attribution.shape[:2]
    check_shape(
        *("perturbed_attribution", perturbed_attribution),
        *((len(attribution), draws, *attribution.shape[1:]), "attribution"),
    )
    wide = accumulation_dtype(attribution.device)
    maps = attribution.to(wide).flatten(1)
    off = perturbed_attribution.to(wide).reshape(batch, draws, -1) - maps[:, None]
    found = off.norm(dim=-1).amax(dim=1) / maps.norm(dim=-1)
    return found.masked_fill(~found.isfinite(), float("nan"))
