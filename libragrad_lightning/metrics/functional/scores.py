"""What a head's logits say about one target class.

A task tells how to read them, in the terms of ``torchmetrics``:

- ``"multiclass"``: C logits under a softmax; the target is the index of a class.
- ``"binary"``: one logit (C = 1) under a sigmoid; the target is 1 or 0, the side that is explained.
- ``"multilabel"``: C logits, each under its own sigmoid; the target is the index of the label that
  is explained, and counts as predicted while its probability is above one half.

A score is NaN where a logit that it rests on is not finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from libragrad_lightning.metrics.functional.checks import (
    check_floating_point,
    check_layout,
    check_member,
    check_target,
)
from libragrad_lightning.metrics.functional.precision import accumulation_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

Task = Literal["multiclass", "binary", "multilabel"]
Score = Literal["accuracy", "probability", "log_probability", "logit"]


def target_accuracy(logits: Tensor, target: Tensor, task: Task = "multiclass") -> Tensor:
    """Tell whether the target is predicted.

    Of equal largest logits of a multiclass head, the one with the lowest class index counts as the
    prediction; a logit of exactly 0 under a sigmoid counts as the prediction 0.

    Args:
        logits: Logits [B, C] or [B, S, C], any floating point type.
        target: Class indices [B], an integer type.
        task: How to read the logits.

    Returns:
        1 where it is, 0 where it is not: [B] or [B, S], float64 (float32 on devices without it).

    Raises:
        ValueError: If an argument, a shape, a type or a class index is wrong.
    """
    _check(logits, target, task)
    if task == "multiclass":
        index = target.long().reshape(-1, *[1] * (logits.ndim - 2))
        correct = logits.argmax(dim=-1) == index
    elif task == "binary":
        correct = (logits[..., 0] > 0) == _per_level(target, logits).bool()
    else:
        correct = _at_target(logits, target) > 0
    return _nan_unless_finite(correct.to(accumulation_dtype(logits.device)), logits, target, task)


def target_log_probability(logits: Tensor, target: Tensor, task: Task = "multiclass") -> Tensor:
    """Return the logarithm of the target's probability.

    Args:
        logits: Logits [B, C] or [B, S, C], any floating point type.
        target: Class indices [B], an integer type.
        task: How to read the logits.

    Returns:
        Log-probabilities in nats, [B] or [B, S], float64 (float32 on devices without float64).

    Raises:
        ValueError: If an argument, a shape, a type or a class index is wrong.
    """
    if task != "multiclass":
        return F.logsigmoid(target_logit(logits, target, task))
    _check(logits, target, task)
    wide = logits.to(accumulation_dtype(logits.device))
    values = _at_target(wide.log_softmax(dim=-1), target)
    return _nan_unless_finite(values, logits, target, task)


def target_probability(logits: Tensor, target: Tensor, task: Task = "multiclass") -> Tensor:
    """Return the target's probability.

    Args:
        logits: Logits [B, C] or [B, S, C], any floating point type.
        target: Class indices [B], an integer type.
        task: How to read the logits.

    Returns:
        Probabilities, [B] or [B, S], float64 (float32 on devices without float64).

    Raises:
        ValueError: If an argument, a shape, a type or a class index is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import target_probability
        >>> target_probability(torch.zeros(2, 1), torch.tensor([0, 1]), "binary").tolist()
        [0.5, 0.5]
    """
    return target_log_probability(logits, target, task).exp()


def target_logit(logits: Tensor, target: Tensor, task: Task = "multiclass") -> Tensor:
    """Return the target's logit, which is the negative logit for the side 0 of a binary head.

    Args:
        logits: Logits [B, C] or [B, S, C], any floating point type.
        target: Class indices [B], an integer type.
        task: How to read the logits.

    Returns:
        Logits, [B] or [B, S], float64 (float32 on devices without float64).

    Raises:
        ValueError: If an argument, a shape, a type or a class index is wrong.
    """
    _check(logits, target, task)
    wide = logits.to(accumulation_dtype(logits.device))
    if task == "binary":
        values = torch.where(_per_level(target, logits).bool(), wide[..., 0], -wide[..., 0])
    else:
        values = _at_target(wide, target)
    return _nan_unless_finite(values, logits, target, task)


SCORES: Mapping[str, Callable[[Tensor, Tensor, Task], Tensor]] = {
    "accuracy": target_accuracy,
    "probability": target_probability,
    "log_probability": target_log_probability,
    "logit": target_logit,
}
"""Every score of a target, by name."""

TASKS = ("multiclass", "binary", "multilabel")


def _check(logits: Tensor, target: Tensor, task: Task) -> None:
    check_member("task", task, TASKS)
    check_layout("logits", logits, "[B, S, C]" if logits.ndim == 3 else "[B, C]")
    check_floating_point("logits", logits)
    if task == "binary" and logits.shape[-1] != 1:
        raise ValueError(
            f"Expected logits with one value per sample under argument `task='binary'`"
            f" but got shape {list(logits.shape)}."
        )
    check_target(target, logits.shape[0], 2 if task == "binary" else logits.shape[-1], "logits")


def _per_level(target: Tensor, logits: Tensor) -> Tensor:
    """Repeat class indices [B] over the levels of logits [B, ..., C]: [B, ...]."""
    return target.long().view(-1, *[1] * (logits.ndim - 2)).expand(logits.shape[:-1])


def _at_target(values: Tensor, target: Tensor) -> Tensor:
    return values.gather(-1, _per_level(target, values)[..., None])[..., 0]


def _nan_unless_finite(values: Tensor, logits: Tensor, target: Tensor, task: Task) -> Tensor:
    finite = logits.isfinite()
    relevant = _at_target(finite, target) if task == "multilabel" else finite.all(dim=-1)
    return values.masked_fill(~relevant, float("nan"))
