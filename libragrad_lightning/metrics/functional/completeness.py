"""Completeness: do the attributions add up to the output that they explain?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.functional.checks import (
    check_floating_point,
    check_layout,
    check_shape,
)
from libragrad_lightning.metrics.functional.precision import accumulation_dtype

if TYPE_CHECKING:
    from torch import Tensor


def completeness_error(attribution_total: Tensor, logit: Tensor) -> Tensor:
    r"""Return how far each attribution is from adding up to its logit.

    .. math:: e_b = \Big| \sum_i A_{b,i} - z_b \Big|

    Args:
        attribution_total: Sum of all attributions of a sample, prefix tokens and biases included,
            in units of the logit: [B], or [L, B] for the attributions of L blocks; any floating
            point type.
        logit: The explained logit [B], any floating point type.

    Returns:
        Absolute errors, shaped like ``attribution_total``, float64 (float32 on devices without
        float64); not finite where an argument is not.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import completeness_error
        >>> completeness_error(torch.tensor([2.0, 5.0]), torch.tensor([2.0, 4.0])).tolist()
        [0.0, 1.0]

    Source:
        LibraGrad (Mehri et al., CVPR 2025), equation 1.
    """
    blocks = attribution_total.ndim == 2
    check_layout("attribution_total", attribution_total, "[L, B]" if blocks else "[B]")
    check_floating_point("attribution_total", attribution_total)
    check_floating_point("logit", logit)
    check_shape("logit", logit, (attribution_total.shape[-1],), "attribution_total")
    dtype = accumulation_dtype(logit.device)
    return (attribution_total.to(dtype) - logit.to(dtype)).abs()


def relative_completeness_error(attribution_total: Tensor, logit: Tensor) -> Tensor:
    r"""Return the completeness error as a fraction of the logit's size.

    .. math:: e_b = \Big| \sum_i A_{b,i} - z_b \Big| \, / \, |z_b|

    Args:
        attribution_total: Sum of all attributions of a sample, prefix tokens and biases included,
            in units of the logit: [B], or [L, B] for the attributions of L blocks; any floating
            point type.
        logit: The explained logit [B], any floating point type.

    Returns:
        Relative errors without unit, shaped like ``attribution_total``, float64 (float32 on devices
        without float64); not finite where an argument is not or where the logit is zero.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import relative_completeness_error
        >>> relative_completeness_error(torch.tensor([3.0]), torch.tensor([-4.0])).tolist()
        [1.75]

    Source:
        LibraGrad (Mehri et al., CVPR 2025), equation 1, divided by the size of the logit.
    """
    error = completeness_error(attribution_total, logit)
    return error / logit.to(error.dtype).abs()
