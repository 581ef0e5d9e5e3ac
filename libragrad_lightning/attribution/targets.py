"""Targets: which class (or output) of each image is explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.attribution.tasks import Task, class_logits, task_of
from libragrad_lightning.backward import LibraGradError


class TargetError(LibraGradError, ValueError):
    """What is to be explained is no class or output of the model; one sentence says why."""


Target: TypeAlias = str | int | Callable[[Tensor, Tensor | None], Tensor]
"""``"predicted"``, ``"label"``, a class index, or a function of logits and labels to classes."""


def target_classes(
    target: Target, logits: Tensor, labels: Tensor | None = None, task: Task | None = None
) -> Tensor:
    """Return the classes to explain, int64 `[B]`.

    Args:
        target: What to explain. ``"predicted"`` is the class (or label) with the largest logit; a
            regression with one output has nothing to choose from.
        logits: `[B, C]`.
        labels: Class indices `[B]`, needed for ``"label"``.
        task: What the logits mean; by default they are classes, two of them if C = 1.

    Raises:
        TargetError: If the target is unknown, out of range, of the wrong length, or needs labels.
    """
    task = task or task_of(logits)
    scores = class_logits(logits) if task == "binary" else logits
    count, classes = scores.shape
    if task == "regression" and target in ("predicted", "label"):
        return _only_output(scores)
    if target == "predicted":
        return scores.detach().argmax(1)
    if target == "label":
        chosen = _required(labels)
    elif isinstance(target, str):
        raise TargetError(
            f"Unknown target {target!r}; `target` takes 'predicted', 'label', a class index or a "
            "function."
        )
    elif callable(target):
        chosen = target(logits.detach(), labels)
    else:
        chosen = torch.as_tensor(target).expand(count)
    if chosen.shape != (count,):
        raise TargetError(
            f"`target` must name one class for each of {count} images but has shape "
            f"{tuple(chosen.shape)}."
        )
    chosen = _whole_numbers(chosen, classes).to(logits.device)
    if count and not (int(chosen.min()) >= 0 and int(chosen.max()) < classes):
        raise TargetError(
            f"`target` names classes from {int(chosen.min())} to {int(chosen.max())}, but the "
            f"model has {classes} classes (0 to {classes - 1})."
        )
    return chosen


def _whole_numbers(chosen: Tensor, classes: int) -> Tensor:
    """Return classes as int64; those of two may be named by truth values."""
    between = chosen.is_floating_point() and not bool((chosen == chosen.floor()).all())
    if between or chosen.is_complex() or (chosen.dtype is torch.bool and classes != 2):
        raise TargetError(
            f"`target` must name classes by whole numbers but holds {chosen.flatten()[:4].tolist()}"
            f" ({chosen.dtype}); round them, or pass indices."
        )
    return chosen.to(torch.int64)


def _only_output(outputs: Tensor) -> Tensor:
    if outputs.shape[1] != 1:
        raise TargetError(
            f"A regression with {outputs.shape[1]} outputs needs `target` to be the index of the "
            "output to explain."
        )
    return torch.zeros(len(outputs), dtype=torch.int64, device=outputs.device)


def _required(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise TargetError(
            "`target='label'` needs labels, and there are none; pass them or use 'predicted'."
        )
    return labels
