"""Pictures in the layout of the paper's figures: methods side by side, and classes told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from findings_measures import explained
from findings_pictured import once_for_each_class
from findings_rows import RULE_FREE, Row
from findings_work import Subject, opened
from libragrad_lightning.attribution import Explanation
from libragrad_lightning.attribution.tasks import class_logits
from libragrad_lightning.heatmaps import (
    PanelColumn,
    mask_overlay,
    overlay,
    panel,
    positive_heatmap,
    stacked,
    to_display_range,
)
from libragrad_lightning.heatmaps.panel import to_pil
from libragrad_lightning.models import explanation_state

SIZE = 140
"""Height and width of a picture, pixels."""

METHODS = (
    Row("random", "plain"),
    Row("raw_attention", "plain"),
    Row("attention_rollout", "plain"),
    Row("integrated_gradients", "plain"),
    Row("input_x_gradient", "attn_lrp"),
    Row("genatt", "plain"),
    Row("genatt", "libra"),
    Row("fullgrad_plus", "plain"),
    Row("fullgrad_plus", "libra"),
)
"""Columns of the first figure."""

PAIRS = tuple(
    Row(method, rules)
    for method in ("genatt", "attcat", "xgradcam_plus", "fullgrad_plus")
    for rules in ("plain", "libra")
)
"""Columns of the second figure."""


def methods_figure(subject: Subject, batch: Mapping[str, Tensor], steps: int) -> Image.Image:
    """Draw images, one in a line, and what methods see of the predicted class in them.

    Args:
        subject: The model.
        batch: `image`, `label` and `mask`.
        steps: Passes of the methods that need many.
    """
    return _figure(subject, batch, METHODS, steps, None)


def classes_figure(subject: Subject, batch: Mapping[str, Tensor], steps: int) -> Image.Image:
    """Draw images with two objects, once for each class, and what methods see of that class.

    Args:
        subject: The model.
        batch: `image`, `label`, `mask`, `other_label` and `other_mask`.
        steps: Passes of the methods that need many.
    """
    both = once_for_each_class(batch)
    return _figure(subject, both, PAIRS, steps, both["label"])


def _figure(
    subject: Subject,
    batch: Mapping[str, Tensor],
    rows: Sequence[Row],
    steps: int,
    labels: Tensor | None,
) -> Image.Image:
    asked = opened(subject)
    data, shown = asked.data, [row for row in rows if row.method in asked.methods]
    images = batch["image"].to(asked.classifier.device)
    with explanation_state(asked.classifier):
        wanted = None if labels is None else labels.to(images.device)
        explanations = explained(asked.model, images, shown, steps, wanted)
    colors = to_display_range(batch["image"], data.image_mean, data.image_std)
    pictures = interpolate(colors, (SIZE, SIZE), mode="bicubic").clamp(0, 1)
    masks = interpolate(batch["mask"][:, None].float(), (SIZE, SIZE), mode="bilinear")[:, 0]
    columns = {_title(row): _drawn(pictures, explanations[str(row)].attribution) for row in shown}
    columns["mask"] = mask_overlay(pictures, masks)
    answers = next(iter(explanations.values()))
    lines = []
    for i, picture in enumerate(pictures):
        heads = [PanelColumn(_said(answers, i, int(batch["label"][i]), data.class_names), picture)]
        heads += [PanelColumn(name if i == 0 else "", of[i]) for name, of in columns.items()]
        lines.append(panel(heads, font_size=12))
    return to_pil(stacked(lines))


def _said(explanation: Explanation, image: int, label: int, names: Sequence[str]) -> str:
    """Return which class is explained and how probable it is, and the label if it is another."""
    target = int(explanation.target[image])
    said = f"{names[target]} {class_logits(explanation.logits[image]).softmax(-1)[target]:.2f}"
    return said if target == label else f"{said}\n(label: {names[label]})"


def _title(row: Row) -> str:
    method = row.method.replace("_", " ")
    return method if row.method in RULE_FREE else f"{method}\n{row.rules}"


def _drawn(pictures: Tensor, attribution: Tensor) -> Tensor:
    return overlay(pictures, positive_heatmap(attribution.cpu(), (SIZE, SIZE)))
