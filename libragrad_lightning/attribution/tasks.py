"""Tasks: what the scores of a head mean.

A task is named in the terms of ``torchmetrics``:

- ``"multiclass"``: `[B, C]` logits under a softmax.
- ``"binary"``: `[B, 1]`, one logit under a sigmoid; its classes are 0 and 1.
- ``"multilabel"``: `[B, C]` logits, each under its own sigmoid.
- ``"regression"``: `[B, C]` outputs that are quantities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

Task: TypeAlias = Literal["multiclass", "binary", "multilabel", "regression"]

TASKS: tuple[Task, ...] = ("multiclass", "binary", "multilabel", "regression")


class ScoringModule(nn.Module):
    """A module from images to scores that says what its scores mean.

    Attributes:
        task: What they mean where `explain` is not told.
        class_names: What they are scores of, if that is known.
    """

    task: Task = "multiclass"
    class_names: Sequence[str] | None = None


def said_task(model: Any) -> Task | None:
    """Return what a model says of its scores, or None."""
    return model.task if isinstance(model, ScoringModule) else None


def task_of(logits: Tensor) -> Task:
    """Return the task of a classifier: one logit `[B, 1]` is that of a sigmoid."""
    return "binary" if logits.shape[-1] == 1 else "multiclass"


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
