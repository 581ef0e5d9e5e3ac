"""The words of panels: what images are, what the model says, how good the maps are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

from libragrad_lightning.attribution import Task
from libragrad_lightning.attribution.tasks import class_logits
from libragrad_lightning.audit import NO_LABEL, ExplainedChunk, ExplainedTarget
from libragrad_lightning.heatmaps import amount
from libragrad_lightning.heatmaps.typography import can_draw

_MOST_LABELS = 4
_UNSAFE = re.compile(r"[^\w.-]+")
"""Characters that tags of loggers, or file systems, may not like."""
_LONGEST_TAG = 40


def remarks(chunk: ExplainedChunk, row: int, names: Sequence[str] | None) -> list[str]:
    """Return what there is to say of an image of a chunk: what is true first, if that is known.

    Args:
        chunk: The chunk.
        row: The image's row in it.
        names: Names of the classes or outputs, or None for their numbers.
    """
    first = chunk.inputs[0].explanation
    logits, target = chunk.outputs[row].float().cpu(), int(first.target[row])
    labels = chunk.labels
    return said(first.task, logits, target, None if labels is None else labels[row], names)


def caption(parts: Sequence[str]) -> str:
    """Return what there is to say of an image as one line."""
    return "  |  ".join(parts)


def map_note(chunk: ExplainedChunk, row: int, rules: str, attribution: Tensor) -> str:
    """Return what there is to say of a map: its average precision, and how much it attributes.

    Args:
        chunk: The chunk.
        row: The image's row in it.
        rules: The rule set.
        attribution: The map `[h, w]`.
    """
    scores = chunk.values.get(f"segmentation_ap/{rules}")
    score = None if scores is None else float(scores[row])
    known = [] if score is None or score != score else [f"AP {score:.2f}"]
    return ", ".join([*known, f"amount {float(amount(attribution[None])):.3g}"])


def label_tag(label: Tensor | None, task: Task, names: Sequence[str] | None) -> str:
    """Return what a picture's tag says of its image: its class or labels, by name or number.

    Args:
        label: The class, the labels `[C]`, or the quantities `[C]` that are true; None if unknown.
        task: What the scores mean.
        names: Names of the classes, or None.

    Returns:
        Letters, digits, ``_``, ``.`` and ``-``; empty if there is no class.
    """
    if label is None or task == "regression":
        return ""
    found = [int(label)] if label.dim() == 0 else label.nonzero()[:, 0].tolist()
    classes = [number for number in found if number != NO_LABEL]
    return _UNSAFE.sub("_", "_".join(class_tag(number, names) for number in classes))[:_LONGEST_TAG]


def class_tag(number: int, names: Sequence[str] | None) -> str:
    """Return the name of a class, or ``class_`` and its number."""
    if names is None or not 0 <= number < len(names):
        return f"class_{number}"
    return names[number]


def title(target: ExplainedTarget, names: Sequence[str] | None) -> str:
    """Return what stands above the maps of a target: its name or text, and its score.

    Args:
        target: The target.
        names: Names of the classes or outputs, or None for their numbers.
    """
    if target.text is None:
        return f"{_name(target.number, names)} {target.score:.2f}"
    known = target.text if can_draw(target.text) else ""
    return f"{known or f'text of image {target.number}'} {target.score:.2f}"


def explained(chunk: ExplainedChunk, row: int, names: Sequence[str] | None) -> str:
    """Return what is explained of an image of a chunk, and its score, in few words.

    Args:
        chunk: The chunk.
        row: The image's row in it.
        names: Names of the classes or outputs, or None for their numbers.
    """
    first = chunk.inputs[0].explanation
    scores, target = chunk.outputs[row].float().cpu(), int(first.target[row])
    if first.task == "regression":
        return f"{float(scores[target]):.3g}"
    several = first.task == "multilabel"
    chances = scores.sigmoid() if several else class_logits(scores).softmax(0)
    return f"{_name(target, names)} {float(chances[target]):.2f}"


def said(
    task: Task, scores: Tensor, target: int, label: Tensor | None, names: Sequence[str] | None
) -> list[str]:
    """Return what there is to say of the scores of an image.

    Args:
        task: What the scores mean.
        scores: `[C]`.
        target: The class, label or output that is explained.
        label: The class, the labels `[C]`, or the quantities `[C]` that are true; None if unknown.
        names: Names of the classes or outputs, or None.
    """
    if task == "regression":
        return _said_of_quantities(scores, target, label, names)
    if task == "multilabel":
        return _said_of_labels(scores, target, label, names)
    probabilities = class_logits(scores).softmax(0)
    predicted = int(probabilities.argmax())
    parts = [f"predicted {_name(predicted, names)} {float(probabilities[predicted]):.2f}"]
    if label is not None and int(label) >= 0:
        parts.insert(0, f"label {_name(int(label), names)}")
    if target != predicted:
        parts.append(f"explained {_name(target, names)}")
    return parts


def _said_of_labels(
    scores: Tensor, target: int, label: Tensor | None, names: Sequence[str] | None
) -> list[str]:
    probabilities = scores.sigmoid()
    predicted = [i for i in probabilities.argsort(descending=True).tolist() if scores[i] > 0]
    shown = [f"{_name(i, names)} {float(probabilities[i]):.2f}" for i in predicted]
    parts = [f"predicted {_listed(shown)}"]
    if label is not None:
        true = [_name(i, names) for i in label.nonzero()[:, 0].tolist()]
        parts.insert(0, f"labels {_listed(true)}")
    return [*parts, f"explained {_name(target, names)} {float(probabilities[target]):.2f}"]


def _said_of_quantities(
    scores: Tensor, target: int, label: Tensor | None, names: Sequence[str] | None
) -> list[str]:
    parts = [f"output {float(scores[target]):.4g}"]
    if label is not None:
        parts.insert(0, f"label {float(label[target]):.4g}")
    # Names of classes say nothing of a single score, as that of an image with its own text.
    if len(scores) > 1 or (names is not None and len(names) == 1):
        parts.append(f"explained {_name(target, names)}")
    return parts


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_LABELS
    shown = ", ".join(names[:_MOST_LABELS]) or "none"
    return f"{shown} and {more} more" if more > 0 else shown


def _name(index: int, names: Sequence[str] | None) -> str:
    if names is None or not 0 <= index < len(names) or not can_draw(names[index]):
        return str(index)
    return names[index]
