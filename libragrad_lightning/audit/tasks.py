"""Which task a validation step has, and labels in the form of each task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from libragrad_lightning.attribution import Task
from libragrad_lightning.attribution.tasks import class_logits
from libragrad_lightning.audit.errors import AuditError
from libragrad_lightning.audit.functions import OF_CLASSES, OF_LABELS, OF_QUANTITIES
from libragrad_lightning.audit.samples import NO_LABEL

_THRESHOLDS = frozenset("gt ge lt le round __gt__ __ge__ __lt__ __le__".split())
"""What says yes or no of a score."""


def told_task(functions: Sequence[str], labels: Tensor | None, outputs: int) -> Task:
    """Return the task that losses, labels and the number of scores tell.

    Args:
        functions: The functions that were given the scores in the validation step, losses first.
        labels: Labels `[B]` or `[B, C]`, if there are any.
        outputs: How many scores an image has.

    Raises:
        AuditError: If they do not tell.
    """
    fractional = labels is not None and labels.is_floating_point() and _is_fractional(labels)
    if fractional and outputs == 1 and any(name in OF_QUANTITIES for name in functions):
        return "regression"
    one_hot = labels is not None and labels.shape[1:] == (outputs,) and _is_one_hot(labels)
    for name in functions:
        if name in OF_CLASSES and outputs > 1:
            return "multiclass"
        if name in OF_LABELS:
            classes = labels is not None and labels.dim() == 1 and outputs > 1
            return "binary" if outputs == 1 else ("multiclass" if classes else "multilabel")
        if name in OF_QUANTITIES:
            return "multiclass" if outputs > 1 and one_hot else "regression"
    if outputs == 1 and any(name in _THRESHOLDS for name in functions):
        return "binary"
    return _task_of_labels(labels, outputs)


def _task_of_labels(labels: Tensor | None, outputs: int) -> Task:
    if labels is None:
        if outputs > 1:
            return "multiclass"
        raise AuditError(
            "LibraGradAudit cannot tell what the only score of an image means, since there are no "
            "labels; pass `task`, 'binary' or 'regression'."
        )
    if outputs == 1 and labels.is_floating_point() and _is_marked(labels):
        raise AuditError(
            "LibraGradAudit cannot tell whether the labels, floating 0 and 1 beside one score, are "
            "classes or quantities; pass `task`, 'binary' or 'regression'."
        )
    several = labels.dim() == 2 and labels.shape[1] > 1
    values = labels.float()
    if several:
        if _is_one_hot(labels) or _is_soft(values):
            return "multiclass"
        return "multilabel" if _is_marked(values) else "regression"
    if outputs == 1:
        return "binary" if bool(((values == 0) | (values == 1)).all()) else "regression"
    return "regression" if labels.is_floating_point() and _is_fractional(values) else "multiclass"


def canonical_labels(labels: Tensor, task: Task, outputs: int) -> Tensor:
    """Return labels in the form of a task.

    Args:
        labels: `[B]`, or `[B, C]`: one-hot, soft, of several labels, or quantities.
        task: The task.
        outputs: How many scores an image has.

    Returns:
        Classes, int64 `[B]` with `NO_LABEL` for none; bool `[B, C]` for several labels; or
        quantities, float32 `[B, C]`.

    Raises:
        AuditError: If labels do not fit the scores.
    """
    if task == "regression":
        found = labels.float().reshape(len(labels), -1)
        return _fitting(found, labels, outputs, found.shape[1] == outputs)
    if task == "multilabel":
        return _fitting(labels >= 0.5, labels, outputs, labels.shape[1:] == (outputs,))
    classes = 2 if task == "binary" else outputs
    if labels.dim() == 2 and labels.shape[1] > 1:
        if _is_marked(labels) and bool((labels.float().sum(1) > 1).any()):
            raise AuditError(
                "LibraGradAudit took labels for one-hot ones, but some images have several; pass "
                "`task='multilabel'`."
            )
        found = _largest(labels.float())
        return _fitting(found, labels, outputs, labels.shape[1] == classes)
    found = labels.reshape(len(labels))
    if found.is_floating_point() and task == "binary" and bool((found <= 1).all()):
        found = found >= 0.5
    found = found.long().masked_fill(found < 0, NO_LABEL)
    if bool((found >= classes).any()):
        raise AuditError(
            f"LibraGradAudit found the label {int(found.max())}, but the scores are those of "
            f"classes 0 to {classes - 1}; pass `unpack` to count labels from 0, `task` if they are "
            "no classes, or `forward` if the scores of the classes are others."
        )
    return found


def ranked_classes(outputs: Tensor, label: Tensor | None, task: Task) -> list[int]:
    """Return the classes, labels or outputs of an image: true ones, then by their scores.

    Args:
        outputs: `[C]`.
        label: What is true of it, in the form of the task, or None.
        task: The task.
    """
    scores = class_logits(outputs) if task == "binary" else outputs
    true: list[int] = []
    if label is not None and task == "multilabel":
        true = label.nonzero()[:, 0].tolist()
    elif label is not None and task != "regression" and int(label) != NO_LABEL:
        true = [int(label)]
    return list(dict.fromkeys([*true, *scores.argsort(descending=True).tolist()]))


def shown_score(outputs: Tensor, number: int, task: Task) -> float:
    """Return what there is to say of a class or label, its probability, or of an output, its value.

    Args:
        outputs: `[C]`.
        number: Which of them.
        task: The task.
    """
    if task == "regression":
        return float(outputs[number])
    if task == "multilabel":
        return float(outputs[number].sigmoid())
    return float(class_logits(outputs).softmax(0)[number])


def has_label(labels: Tensor) -> Tensor:
    """Return which samples have a label, bool `[B]`."""
    if labels.dim() == 1:
        return labels != NO_LABEL
    return torch.ones(len(labels), dtype=torch.bool, device=labels.device)


def classes_of(
    labels: Tensor | None, outputs: Tensor, explained: Tensor, task: Task
) -> tuple[Tensor, Tensor]:
    """Return the class that each image stands for, and whether the model is right about it.

    Args:
        labels: In the form of the task, or None.
        outputs: What the model says, `[B, C]`.
        explained: What is explained of each image, int64 `[B]`.
        task: The task.

    Returns:
        The labels, or what is explained where an image has not one label, int64 `[B]`, -1 for
        quantities; and 1 or 0, NaN where there is no label, float32 `[B]`.
    """
    correct = torch.full((len(outputs),), float("nan"), device=outputs.device)
    if task == "regression":
        return torch.full_like(explained, NO_LABEL), correct
    if labels is None or labels.dim() != 1:
        return explained, correct
    labels = labels.to(outputs.device)
    right = correctness(outputs, labels.clamp(min=0), task)
    return labels.to(torch.int64), torch.where(has_label(labels), right, correct)


def correctness(logits: Tensor, labels: Tensor, task: Task) -> Tensor:
    """Return how right a model is about each image `[B]`.

    That is 1 or 0 for classes, the share of right labels among several, and the mean absolute error
    of quantities.

    Args:
        logits: `[B, C]`.
        labels: In the form of the task, all of them there.
        task: The task.
    """
    if task == "regression":
        return (logits - labels).abs().mean(1)
    if task == "multilabel":
        return ((logits > 0) == labels).float().mean(1)
    return (class_logits(logits).argmax(1) == labels).float()


def _fitting(found: Tensor, labels: Tensor, outputs: int, fits: bool) -> Tensor:
    if fits:
        return found
    raise AuditError(
        f"LibraGradAudit found labels of shape {tuple(labels.shape)} for {outputs} scores per "
        "image; pass `forward` if the scores are others, or `unpack` if the labels are."
    )


def _largest(labels: Tensor) -> Tensor:
    largest, found = labels.max(1)
    return found.masked_fill(largest <= 0, NO_LABEL)


def _is_one_hot(labels: Tensor) -> bool:
    values = labels.float()
    return _is_marked(values) and bool((values.sum(1) == 1).all())


def _is_soft(values: Tensor) -> bool:
    return bool((values >= 0).all() and ((values.sum(1) - 1).abs() < 1e-3).all())


def _is_marked(values: Tensor) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _is_fractional(values: Tensor) -> bool:
    return bool((values != values.round()).any())
