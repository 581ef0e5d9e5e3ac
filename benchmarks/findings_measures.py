"""What is measured of maps: one value per image, nothing averaged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from findings_rows import RULES, Row, named_methods
from libragrad_lightning.attribution import (
    Explanation,
    Reward,
    explain_methods,
    logit,
    probability,
)
from libragrad_lightning.metrics.functional import (
    class_discrimination,
    deletion_accuracy_curve,
    deletion_probability_drop,
    segmentation_average_precision,
    symmetric_relevance_gain,
)
from libragrad_lightning.models import TokenModel
from libragrad_lightning.perturbation import deletion_logits

Values: TypeAlias = dict[str, dict[str, Tensor]]
"""By row and by quantity, the values of the images `[B]`."""


def explained(
    model: TokenModel,
    images: Tensor,
    rows: Sequence[Row],
    steps: int,
    labels: Tensor | None = None,
    reward: Reward = probability,
) -> dict[str, Explanation]:
    """Explain the classes with these labels, or the predicted ones.

    Args:
        model: The model and its tokens.
        images: `[B, C, H, W]`.
        rows: Methods and rule sets.
        steps: Passes of the methods that need many.
        labels: `[B]`, or None.
        reward: What is differentiated; the paper's maps are those of the probability.

    Returns:
        The explanations by row.
    """
    methods, found = named_methods(steps), {}
    by_methods: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in dict.fromkeys(row.rules for row in rows):
        by_methods[tuple(row.method for row in rows if row.rules == name)].append(name)
    for chosen, rule_names in by_methods.items():
        explanations = explain_methods(
            model,
            images,
            labels,
            rules=[RULES[name] for name in rule_names],
            methods={name: methods[name] for name in chosen},
            target="predicted" if labels is None else "label",
            reward=reward,
        )
        for rule_name, by_method in zip(rule_names, explanations, strict=True):
            found.update({str(Row(m, rule_name)): e for m, e in by_method.items()})
    return {str(row): found[str(row)] for row in rows}


def faithfulness(
    model: TokenModel,
    batch: Mapping[str, Tensor],
    rows: Sequence[Row],
    steps: int,
    fill: str,
    reward: Reward = probability,
) -> Values:
    """Measure deletion curves, and the average precision of maps on the object's mask.

    Args:
        model: The model and its tokens.
        batch: `image`, `label` and `mask`.
        rows: Methods and rule sets.
        steps: Passes of the methods that need many.
        fill: The perturbation.
        reward: What is differentiated.
    """
    images, masks = batch["image"], batch["mask"]
    explanations = explained(model, images, rows, steps, reward=reward)
    scores = {name: e.attribution for name, e in explanations.items()}
    # On a CPU, activations of larger batches leave the cache and are allocated anew each time.
    size = 512 if images.is_cuda else 32
    curves = deletion_logits(model, images, scores, batch_size=size, perturbation=fill)
    found: Values = {}
    for name, e in explanations.items():
        mif, lif = curves[name].most_influential_first, curves[name].least_influential_first
        found[name] = {
            "MIF accuracy drop": 1 - deletion_accuracy_curve(mif, e.target).mean(1),
            "LIF accuracy": deletion_accuracy_curve(lif, e.target).mean(1),
            "SRG": symmetric_relevance_gain(mif, lif, e.target).mean(1),
            "MIF AOPC": deletion_probability_drop(e.logits, mif, e.target).mean(1),
            "LIF AOPC": deletion_probability_drop(e.logits, lif, e.target).mean(1),
            "segmentation AP": segmentation_average_precision(e.heatmap(_size(masks)), masks),
            "correct": (e.target == batch["label"]).double(),
        }
    return found


def completeness(
    model: TokenModel, batch: Mapping[str, Tensor], rows: Sequence[Row], steps: int
) -> Values:
    """Measure how far the attributions of the predicted logit are from adding up to it.

    `worst level` is the largest error of FullGrad over the inputs of all blocks. Integrated
    Gradients has to add up to the difference from the logit of tokens that are all zero.

    Args:
        model: The model and its tokens.
        batch: `image`.
        rows: Methods and rule sets; Input x Gradient, Integrated Gradients and FullGrad are meant.
        steps: Passes of Integrated Gradients.
    """
    images = batch["image"]
    explanations = explained(model, images, rows, steps, reward=logit)
    with torch.no_grad():
        at_zero = model.logits_from_tokens(
            model.placeholder_images(images, torch.arange(len(images), device=images.device)),
            torch.zeros_like(model.tokens(images)),
        )
    found: Values = {}
    for row in rows:
        e = explanations[str(row)]
        total = e.attribution.sum((1, 2)) + e.prefix.sum(1)
        aim = e.target_logit
        if row.method == "fullgrad":
            total = total + e.image_biases
        if row.method == "integrated_gradients":
            aim = aim - logit(at_zero, e.target)
        found[str(row)] = {
            "error": (total - aim).abs(),
            "relative error": ((total - aim) / e.target_logit).abs(),
        }
        if row.method == "fullgrad":
            worst = e.residuals.abs().amax(0)
            found[str(row)] |= {"relative error, worst level": worst / e.target_logit.abs()}
    return found


def discrimination(
    model: TokenModel, batch: Mapping[str, Tensor], rows: Sequence[Row], steps: int
) -> Values:
    """Measure whether the maps of two classes in one image tell their objects apart.

    Args:
        model: The model and its tokens.
        batch: `image`, `label`, `mask`, `other_label` and `other_mask`.
        rows: Methods and rule sets.
        steps: Passes of the methods that need many.
    """
    images = batch["image"]
    masks = torch.stack([batch["mask"], batch["other_mask"]], 1)
    of_class = [
        explained(model, images, rows, steps, batch[key]) for key in ("label", "other_label")
    ]
    found: Values = {}
    for row in map(str, rows):
        maps = torch.stack([e[row].heatmap(_size(masks)) for e in of_class], 1)
        precision = segmentation_average_precision(maps.flatten(0, 1), masks.flatten(0, 1))
        found[row] = {
            "class discrimination": class_discrimination(maps, masks),
            "segmentation AP of both": precision.unflatten(0, (-1, 2)).mean(1),
        }
    return found


def _size(masks: Tensor) -> tuple[int, int]:
    return masks.shape[-2], masks.shape[-1]
