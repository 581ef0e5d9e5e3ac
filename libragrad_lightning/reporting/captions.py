"""The line of text below a panel: what the image is, what the model says, how good the maps are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from libragrad_lightning.attribution import Task, class_logits
from libragrad_lightning.audit import ExplainedChunk, ExplainedTarget
from libragrad_lightning.heatmaps.typography import can_draw
from libragrad_lightning.metrics.functional import segmentation_average_precision

_MOST_LABELS = 4


def caption(chunk: ExplainedChunk, row: int, names: Sequence[str] | None) -> str:
    """Return the caption of an image of a chunk.

    Args:
        chunk: The chunk.
        row: The image's row in it.
        names: Names of the classes or outputs, or None for their numbers.
    """
    first = chunk.inputs[0].explanation
    logits, target = chunk.outputs[row].float().cpu(), int(first.target[row])
    labels = chunk.labels
    parts = said(first.task, logits, target, None if labels is None else labels[row], names)
    if chunk.samples.masks is not None:
        found = _average_precisions(chunk, row)
        parts.append("AP " + ", ".join(f"{rules} {score:.2f}" for rules, score in found))
    return "  |  ".join(parts)


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


def _average_precisions(chunk: ExplainedChunk, row: int) -> list[tuple[str, float]]:
    ignore = chunk.samples.ignore
    rows = slice(row, row + 1)
    found = []
    for inputs in chunk.inputs:
        assert inputs.heatmaps is not None
        assert inputs.masks is not None
        score = segmentation_average_precision(
            inputs.heatmaps[rows], inputs.masks[rows], None if ignore is None else ignore[rows]
        )
        found.append((inputs.explanation.rules.name, float(score)))
    return found
