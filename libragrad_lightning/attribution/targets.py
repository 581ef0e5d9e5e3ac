"""Targets: which class of each image is explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Target: TypeAlias = str | int | Callable[[Tensor, Tensor | None], Tensor]
"""``"predicted"``, ``"label"``, a class index, or a function of logits and labels to classes."""


def class_logits(logits: Tensor) -> Tensor:
    """Return one logit for each class, whose softmax is what the head says.

    A head with one logit z is that of a sigmoid: its classes 0 and 1 have -z/2 and z/2, so that the
    softmax of the two is the sigmoid of z. Other logits are returned as they are.

    Args:
        logits: `[..., C]`, floating point.

    Returns:
        `[..., max(C, 2)]`.
    """
    return torch.cat([-logits, logits], -1) / 2 if logits.shape[-1] == 1 else logits


def target_classes(target: Target, logits: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return the classes to explain, int64 `[B]`.

    Args:
        target: What to explain.
        logits: `[B, C]`; one logit has the classes 0 and 1 (see `class_logits`).
        labels: Class indices `[B]`, needed for ``"label"``.

    Raises:
        ValueError: If the target is unknown, out of range, of the wrong length, or needs labels.
    """
    count, classes = class_logits(logits).shape
    if target == "predicted":
        return class_logits(logits.detach()).argmax(1)
    if target == "label":
        chosen = _required(labels)
    elif isinstance(target, str):
        raise ValueError(
            f"Unknown target {target!r}; `target` takes 'predicted', 'label', a class index or a "
            "function."
        )
    elif callable(target):
        chosen = target(logits.detach(), labels)
    else:
        chosen = torch.full((count,), int(target))
    chosen = chosen.to(device=logits.device, dtype=torch.int64)
    if chosen.shape != (count,):
        raise ValueError(
            f"`target` must name one class for each of {count} images but has shape "
            f"{tuple(chosen.shape)}."
        )
    if count and not (int(chosen.min()) >= 0 and int(chosen.max()) < classes):
        raise ValueError(
            f"`target` names classes from {int(chosen.min())} to {int(chosen.max())}, but the "
            f"model has {classes} classes (0 to {classes - 1})."
        )
    return chosen


def _required(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ValueError(
            "`target='label'` needs labels, and there are none; pass them or use 'predicted'."
        )
    return labels
