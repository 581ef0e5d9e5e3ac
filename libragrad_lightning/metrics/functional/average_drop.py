"""What is left of a probability when a model sees only what a map shows."""

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


def explained_drop(probability: Tensor, explained_probability: Tensor) -> Tensor:
    r"""Return which part of the probability is lost when only what a map shows is seen.

    .. math:: \max(0, p - o) / p

    Args:
        probability: Of the explained class for the images [B], any floating point type.
        explained_probability: For the images seen through their maps [B].

    Returns:
        Values in [0, 1], [B], float64 (float32 on devices without float64); NaN where a probability
        is not finite, or that of the image is 0.

    Raises:
        ValueError: If a shape or a type is wrong, or a value is outside of [0, 1].

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import explained_drop
        >>> explained_drop(torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.75])).tolist()
        [0.5, 0.0]

    Source:
        Chattopadhay et al., Grad-CAM++ (WACV 2018), "average drop".
    """
    before, after = _checked(probability, explained_probability)
    return _known((before - after).clamp_min(0) / before, before, after)


def explained_gain(probability: Tensor, explained_probability: Tensor) -> Tensor:
    r"""Return which part of what a probability lacks is gained when only a map's part is seen.

    .. math:: \max(0, o - p) / (1 - p)

    Args:
        probability: Of the explained class for the images [B], any floating point type.
        explained_probability: For the images seen through their maps [B].

    Returns:
        Values in [0, 1], [B], float64 (float32 on devices without float64); NaN where a probability
        is not finite, or that of the image is 1.

    Raises:
        ValueError: If a shape or a type is wrong, or a value is outside of [0, 1].

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import explained_gain
        >>> explained_gain(torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.75])).tolist()
        [0.0, 0.5]

    Source:
        Zhang et al., Opti-CAM: Optimizing Saliency Maps for Interpretability (CVIU 2024),
        "average gain".
    """
    before, after = _checked(probability, explained_probability)
    return _known((after - before).clamp_min(0) / (1 - before), before, after)


def explained_increase(probability: Tensor, explained_probability: Tensor) -> Tensor:
    """Tell where a probability is higher when only what a map shows is seen.

    Args:
        probability: Of the explained class for the images [B], any floating point type.
        explained_probability: For the images seen through their maps [B].

    Returns:
        1 where it is, 0 where it is not: [B], float64 (float32 on devices without float64); NaN
        where a probability is not finite.

    Raises:
        ValueError: If a shape or a type is wrong, or a value is outside of [0, 1].

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import explained_increase
        >>> explained_increase(torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.75])).tolist()
        [0.0, 1.0]

    Source:
        Chattopadhay et al., Grad-CAM++ (WACV 2018), "increase in confidence".
    """
    before, after = _checked(probability, explained_probability)
    return _known((after > before).to(before), before, after)


def _checked(probability: Tensor, explained_probability: Tensor) -> tuple[Tensor, Tensor]:
    found = []
    for name, values in (
        ("probability", probability),
        ("explained_probability", explained_probability),
    ):
        check_layout(name, values, "[B]")
        check_floating_point(name, values)
        known = values[values.isfinite()]
        if bool(((known < 0) | (known > 1)).any()):
            raise ValueError(
                f"Expected argument `{name}` to hold probabilities in [0, 1] but got values from"
                f" {float(known.amin()):.3g} to {float(known.amax()):.3g}."
            )
        found.append(values.to(accumulation_dtype(values.device)))
    check_shape(
        "explained_probability", explained_probability, tuple(probability.shape), "probability"
    )
    return found[0], found[1]


def _known(values: Tensor, before: Tensor, after: Tensor) -> Tensor:
    known = values.isfinite() & before.isfinite() & after.isfinite()
    return values.masked_fill(~known, float("nan"))
