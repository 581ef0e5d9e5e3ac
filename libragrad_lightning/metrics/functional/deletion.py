"""Faithfulness by deletion: what is left of a prediction once tokens have been removed.

``masked_logits`` [B, S, C] holds the logits at S deletion levels. Deleted most influential first
(MIF), a faithful ranking loses the prediction early; deleted least influential first (LIF), it
keeps the prediction long. The outputs of a regression are read likewise. One value per sample and
level comes back, NaN where a logit that it rests on is not finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from libragrad_lightning.metrics.functional.checks import (
    check_floating_point,
    check_layout,
    check_member,
    check_shape,
    check_target,
)
from libragrad_lightning.metrics.functional.scores import (
    SCORES,
    target_accuracy,
    target_log_probability,
    target_logit,
    target_probability,
)

if TYPE_CHECKING:
    from torch import Tensor

    from libragrad_lightning.metrics.functional.scores import Score, Task


def deletion_accuracy_curve(
    masked_logits: Tensor, target: Tensor, task: Task = "multiclass"
) -> Tensor:
    r"""Tell at which deletion levels the target is still the predicted class.

    .. math:: a_{b,s} = [\arg\max_c z_{b,s,c} = y_b]

    Of equal largest logits, the one with the lowest class index counts as the prediction.

    Args:
        masked_logits: Logits after deletion [B, S, C], any floating point type.
        target: Class indices [B], an integer type.
        task: How to read the logits: ``"multiclass"``, ``"binary"`` (one logit, target 0 or 1) or
            ``"multilabel"``; see ``scores``.

    Returns:
        1 where the target is predicted, 0 where another class is, NaN where a logit is not
        finite: [B, S], float64 (float32 on devices without float64).

    Raises:
        ValueError: If an argument, a shape, a type or a class index is wrong.

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
    _check_target(target, masked_logits, "masked_logits", task)
    return target_accuracy(masked_logits, target, task)


def deletion_probability_drop(
    logits: Tensor, masked_logits: Tensor, target: Tensor, task: Task = "multiclass"
) -> Tensor:
    r"""Return the loss of target probability at every deletion level.

    .. math:: d_{b,s} = p_{y_b}(\text{intact}) - p_{y_b}(\text{masked at level } s)

    Args:
        logits: Logits of the intact images [B, C], any floating point type.
        masked_logits: Logits after deletion [B, S, C], any floating point type.
        target: Class indices [B], an integer type.
        task: How to read the logits: ``"multiclass"``, ``"binary"`` (one logit, target 0 or 1) or
            ``"multilabel"``; see ``scores``.

    Returns:
        Drops in [-1, 1], [B, S], float64 (float32 on devices without float64); NaN where a logit
        is not finite.

    Raises:
        ValueError: If an argument, a shape, a type or a class index is wrong.

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
    _check_pair(logits, masked_logits, target, task)
    intact = target_probability(logits, target, task)
    return intact[:, None] - target_probability(masked_logits, target, task)


def deletion_log_odds_drop(
    logits: Tensor, masked_logits: Tensor, target: Tensor, task: Task = "multiclass"
) -> Tensor:
    r"""Return the loss of target log-probability at every deletion level.

    .. math:: d_{b,s} = \log p_{y_b}(\text{intact}) - \log p_{y_b}(\text{masked at level } s)

    Args:
        logits: Logits of the intact images [B, C], any floating point type.
        masked_logits: Logits after deletion [B, S, C], any floating point type.
        target: Class indices [B], an integer type.
        task: How to read the logits: ``"multiclass"``, ``"binary"`` (one logit, target 0 or 1) or
            ``"multilabel"``; see ``scores``.

    Returns:
        Drops in nats, [B, S], float64 (float32 on devices without float64); NaN where a logit is
        not finite.

    Raises:
        ValueError: If an argument, a shape, a type or a class index is wrong.

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
    _check_pair(logits, masked_logits, target, task)
    intact = target_log_probability(logits, target, task)
    return intact[:, None] - target_log_probability(masked_logits, target, task)


def deletion_relative_drop(
    output: Tensor, masked_output: Tensor, target: Tensor | None = None
) -> Tensor:
    r"""Return by which part of its size an output of a regression falls at every deletion level.

    .. math:: d_{b,s} = \frac{f_{y_b}(\text{intact}) - f_{y_b}(\text{masked at level } s)}
                            {|f_{y_b}(\text{intact})|}

    Negative where the output rises. The ratio rests on where the zero of the output's scale is.

    Args:
        output: Outputs for the intact images [B, C], any floating point type.
        masked_output: Outputs after deletion [B, S, C], any floating point type.
        target: Indices of the explained outputs [B], an integer type; not needed if C is 1.

    Returns:
        Relative drops, without unit or bounds, [B, S], float64 (float32 on devices without
        float64); NaN where the explained output is not finite, or is 0 for the intact image.

    Raises:
        ValueError: If a shape, a type or an index is wrong, or the target is left out with several
            outputs.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import deletion_relative_drop
        >>> output = torch.tensor([[-4.0, 2.0]])
        >>> masked_output = torch.tensor([[[-4.0, 1.0], [-5.0, 3.0]]])
        >>> deletion_relative_drop(output, masked_output, torch.tensor([0])).tolist()
        [[0.0, 0.25]]
        >>> deletion_relative_drop(output, masked_output, torch.tensor([1])).tolist()
        [[0.5, -0.5]]

    Source:
        The drop of the explained score of Samek et al., Evaluating the Visualization of What a Deep
        Neural Network Has Learned (2017), in units of the score, which a regression does not bound.
    """
    _check_logits("output", output, "[B, C]")
    if target is None:
        target = _the_only_output(output)
    _check_pair(output, masked_output, target, "multilabel", "output")
    # As a label of a multilabel head, an output rests on no other.
    intact = target_logit(output, target, "multilabel")[:, None]
    drop = (intact - target_logit(masked_output, target, "multilabel")) / intact.abs()
    return drop.masked_fill(intact == 0, float("nan"))


def symmetric_relevance_gain(
    mif_logits: Tensor,
    lif_logits: Tensor,
    target: Tensor,
    task: Task = "multiclass",
    score: Score = "accuracy",
) -> Tensor:
    r"""Return the score gained by deleting the least instead of the most influential first.

    .. math:: g_{b,s} = f_{y_b}(z^{\text{LIF}}_{b,s}) - f_{y_b}(z^{\text{MIF}}_{b,s})

    Args:
        mif_logits: Logits after deleting the most influential first [B, S, C].
        lif_logits: Logits after deleting as many of the least influential first [B, S, C].
        target: Class indices [B], an integer type.
        task: How to read the logits: ``"multiclass"``, ``"binary"`` (one logit, target 0 or 1) or
            ``"multilabel"``; see ``scores``.
        score: The score f of the target: ``"accuracy"``, ``"probability"``, ``"log_probability"``
            or ``"logit"``.

    Returns:
        Gains, [B, S], float64 (float32 on devices without float64): -1, 0 or 1 for the accuracy;
        NaN where a logit is not finite.

    Raises:
        ValueError: If an argument, a shape, a type or a class index is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import symmetric_relevance_gain
        >>> mif_logits = torch.tensor([[[3.0, 1.0], [0.0, 2.0]]])
        >>> lif_logits = torch.tensor([[[3.0, 1.0], [2.0, 1.0]]])
        >>> symmetric_relevance_gain(mif_logits, lif_logits, torch.tensor([0])).tolist()
        [[0.0, 1.0]]

    Source:
        Blücher et al., Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI
        Benchmarks (TMLR 2024).
    """
    check_member("score", score, tuple(SCORES))
    _check_logits("mif_logits", mif_logits, "[B, S, C]")
    _check_logits("lif_logits", lif_logits, "[B, S, C]")
    check_shape("lif_logits", lif_logits, tuple(mif_logits.shape), "mif_logits")
    _check_target(target, mif_logits, "mif_logits", task)
    of_target = SCORES[score]
    return of_target(lif_logits, target, task) - of_target(mif_logits, target, task)


def _the_only_output(output: Tensor) -> Tensor:
    if output.shape[1] != 1:
        raise ValueError(
            f"Expected argument `target` to hold the index of one of {output.shape[1]} outputs for"
            f" each sample but got None."
        )
    return torch.zeros(len(output), dtype=torch.long, device=output.device)


def _check_pair(
    logits: Tensor, masked_logits: Tensor, target: Tensor, task: Task, name: str = "logits"
) -> None:
    _check_logits(name, logits, "[B, C]")
    _check_logits(f"masked_{name}", masked_logits, "[B, S, C]")
    batch, classes = logits.shape
    check_shape(f"masked_{name}", masked_logits, (batch, masked_logits.shape[1], classes), name)
    _check_target(target, logits, name, task)


def _check_target(target: Tensor, logits: Tensor, like: str, task: Task) -> None:
    check_target(target, logits.shape[0], 2 if task == "binary" else logits.shape[-1], like)


def _check_logits(argument: str, logits: Tensor, layout: str) -> None:
    check_layout(argument, logits, layout)
    check_floating_point(argument, logits)
