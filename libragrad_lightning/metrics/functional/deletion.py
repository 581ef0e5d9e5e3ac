"""Faithfulness by deletion: what is left of a prediction once tokens have been removed.

``masked_logits`` [B, S, C] holds the logits at S deletion levels. Deleted most influential first
(MIF), a faithful ranking loses the prediction early; deleted least influential first (LIF), it
keeps the prediction long. One value per sample and level comes back, NaN where a logit that it
rests on is not finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.functional.checks import (
    check_floating_point,
    check_layout,
    check_shape,
    check_target,
)
from libragrad_lightning.metrics.functional.precision import accumulation_dtype

if TYPE_CHECKING:
    from torch import Tensor


def deletion_accuracy_curve(masked_logits: Tensor, target: Tensor) -> Tensor:
    r"""Tell at which deletion levels the target is still the predicted class.

    .. math:: a_{b,s} = [\arg\max_c z_{b,s,c} = y_b]

    Of equal largest logits, the one with the lowest class index counts as the prediction.

    Args:
        masked_logits: Logits after deletion [B, S, C], any floating point type.
        target: Class indices [B], an integer type.

    Returns:
        1 where the target is predicted, 0 where another class is, NaN where a logit is not
        finite: [B, S], float64 (float32 on devices without float64).

    Raises:
        ValueError: If a shape, a type or a class index is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import deletion_accuracy_curve
        >>> masked_logits = torch.tensor([[[3.0, 1.0], [0.0, 2.0]]])
        >>> deletion_accuracy_curve(masked_logits, torch.tensor([0])).tolist()
        [[1.0, 0.0]]

    Source:
        LibraGrad (Mehri et al., CVPR 2025), section 4.1.
    """
    _check_logits("masked_logits", masked_logits, "[B, S, C]")
    check_target(target, masked_logits, "masked_logits")
    return _correct(masked_logits, target)


def deletion_probability_drop(logits: Tensor, masked_logits: Tensor, target: Tensor) -> Tensor:
    r"""Return the loss of target probability at every deletion level.

    .. math:: d_{b,s} = p_{y_b}(\text{intact}) - p_{y_b}(\text{masked at level } s)

    Args:
        logits: Logits of the intact images [B, C], any floating point type.
        masked_logits: Logits after deletion [B, S, C], any floating point type.
        target: Class indices [B], an integer type.

    Returns:
        Drops in [-1, 1], [B, S], float64 (float32 on devices without float64); NaN where a logit
        is not finite.

    Raises:
        ValueError: If a shape, a type or a class index is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import deletion_probability_drop
        >>> logits = torch.tensor([[0.9, 0.1]]).log()
        >>> masked_logits = torch.tensor([[[0.7, 0.3], [0.2, 0.8]]]).log()
        >>> deletion_probability_drop(logits, masked_logits, torch.tensor([0])).float()
        tensor([[0.2000, 0.7000]])

    Source:
        LibraGrad (Mehri et al., CVPR 2025), section 4.1; its mean over levels is the AOPC.
    """
    intact, masked = _target_log_probabilities(logits, masked_logits, target)
    return intact.exp()[:, None] - masked.exp()


def deletion_log_odds_drop(logits: Tensor, masked_logits: Tensor, target: Tensor) -> Tensor:
    r"""Return the loss of target log-probability at every deletion level.

    .. math:: d_{b,s} = \log p_{y_b}(\text{intact}) - \log p_{y_b}(\text{masked at level } s)

    Args:
        logits: Logits of the intact images [B, C], any floating point type.
        masked_logits: Logits after deletion [B, S, C], any floating point type.
        target: Class indices [B], an integer type.

    Returns:
        Drops in nats, [B, S], float64 (float32 on devices without float64); NaN where a logit is
        not finite.

    Raises:
        ValueError: If a shape, a type or a class index is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import deletion_log_odds_drop
        >>> logits = torch.tensor([[0.8, 0.2]]).log()
        >>> masked_logits = torch.tensor([[[0.8, 0.2], [0.4, 0.6]]]).log()
        >>> deletion_log_odds_drop(logits, masked_logits, torch.tensor([0])).float()
        tensor([[0.0000, 0.6931]])

    Source:
        LibraGrad (Mehri et al., CVPR 2025), section 4.1, where the quantity is named log-odds.
    """
    intact, masked = _target_log_probabilities(logits, masked_logits, target)
    return intact[:, None] - masked


def symmetric_relevance_gain(mif_logits: Tensor, lif_logits: Tensor, target: Tensor) -> Tensor:
    r"""Return the accuracy gained by deleting the least instead of the most influential first.

    .. math:: g_{b,s} = [\arg\max_c z^{\text{LIF}}_{b,s,c} = y_b]
                      - [\arg\max_c z^{\text{MIF}}_{b,s,c} = y_b]

    Args:
        mif_logits: Logits after deleting the most influential first [B, S, C].
        lif_logits: Logits after deleting as many of the least influential first [B, S, C].
        target: Class indices [B], an integer type.

    Returns:
        -1, 0 or 1, [B, S], float64 (float32 on devices without float64); NaN where a logit is not
        finite.

    Raises:
        ValueError: If a shape, a type or a class index is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import symmetric_relevance_gain
        >>> mif_logits = torch.tensor([[[3.0, 1.0], [0.0, 2.0]]])
        >>> lif_logits = torch.tensor([[[3.0, 1.0], [2.0, 1.0]]])
        >>> symmetric_relevance_gain(mif_logits, lif_logits, torch.tensor([0])).tolist()
        [[0.0, 1.0]]

    Source:
        Blücher et al., Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI
        Benchmarks (TMLR 2024), with accuracy as the score.
    """
    _check_logits("mif_logits", mif_logits, "[B, S, C]")
    _check_logits("lif_logits", lif_logits, "[B, S, C]")
    check_shape("lif_logits", lif_logits, tuple(mif_logits.shape), "mif_logits")
    check_target(target, mif_logits, "mif_logits")
    return _correct(lif_logits, target) - _correct(mif_logits, target)


def _correct(logits: Tensor, target: Tensor) -> Tensor:
    """Return 1 where the largest of logits [B, S, C] is the target's, else 0: [B, S]."""
    correct = logits.argmax(dim=-1) == target[:, None]
    return _nan_unless_finite(correct.to(accumulation_dtype(logits.device)), logits)


def _target_log_probabilities(
    logits: Tensor, masked_logits: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Return log p of the target on the intact [B] and on the masked images [B, S]."""
    _check_logits("logits", logits, "[B, C]")
    _check_logits("masked_logits", masked_logits, "[B, S, C]")
    batch, classes = logits.shape
    check_shape("masked_logits", masked_logits, (batch, masked_logits.shape[1], classes), "logits")
    check_target(target, logits, "logits")
    return _log_probability(logits, target), _log_probability(masked_logits, target[:, None])


def _log_probability(logits: Tensor, target: Tensor) -> Tensor:
    """Return log softmax of logits [..., C] at the target, whose dimensions may be broadcast."""
    wide = logits.to(accumulation_dtype(logits.device))
    index = target.long().expand(logits.shape[:-1])[..., None]
    return _nan_unless_finite(wide.log_softmax(dim=-1).gather(-1, index)[..., 0], logits)


def _nan_unless_finite(values: Tensor, logits: Tensor) -> Tensor:
    return values.masked_fill(~logits.isfinite().all(dim=-1), float("nan"))


def _check_logits(argument: str, logits: Tensor, layout: str) -> None:
    check_layout(argument, logits, layout)
    check_floating_point(argument, logits)
