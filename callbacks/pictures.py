"""Draws one panel per probe image: the image, its map under every rule set, and its mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import lightning.pytorch as pl
import torch
from libragrad_lightning.callbacks.samples import Samples
from libragrad_lightning.callbacks.sinks import trainer_sinks
from torch import Tensor

from libragrad_lightning.attribution import Explanation, class_logits
from libragrad_lightning.heatmaps import explanation_panel, to_display_range
from libragrad_lightning.metrics.functional import segmentation_average_precision


@dataclass(frozen=True)
class PictureSettings:
    """How panels are drawn.

    Attributes:
        count: How many probe images are drawn.
        size: The longer side of one picture in the panel, in pixels.
        mean: Channel means that the images were normalised with, or None.
        std: Channel standard deviations that the images were normalised with, or None.
        class_names: Names of the classes for captions, or None for their numbers.
    """

    count: int
    size: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    class_names: tuple[str, ...] | None


def shown_pictures(
    settings: PictureSettings, trainer: pl.Trainer, module: pl.LightningModule
) -> PictureSettings:
    """Return the settings with what the user's objects say of the images, if they say nothing.

    Class names are those of the data module or the module; the normalisation is that of the data
    module. Nothing is drawn where nothing takes pictures.
    """
    data, names = getattr(trainer, "datamodule", None), settings.class_names
    for owner in (data, module):
        names = names or getattr(owner, "class_names", None)
    mean, std = settings.mean, settings.std
    if mean is None and std is None:
        mean, std = (_channels(data, name) for name in ("image_mean", "image_std"))
    return replace(
        settings,
        count=settings.count if trainer_sinks(trainer) else 0,
        mean=mean,
        std=std,
        class_names=None if names is None else tuple(names),
    )


def draw_panels(
    samples: Samples, explanations: Sequence[Explanation], settings: PictureSettings
) -> list[Tensor]:
    """Draw a panel, uint8 `[3, H, W]`, for every sample of a chunk.

    Args:
        samples: The samples of the chunk.
        explanations: One explanation of the chunk for every rule set.
        settings: How to draw.
    """
    images = to_display_range(samples.images.cpu().float(), settings.mean, settings.std)
    panels: list[Tensor] = []
    for i in range(len(samples)):
        maps = {e.rules.name: e.attribution[i].cpu() for e in explanations}
        mask = None if samples.masks is None else samples.masks[i].cpu()
        caption = _caption(samples, explanations, i, settings)
        panels.append(explanation_panel(images[i], maps, mask, caption, column_size=settings.size))
    return panels


def log_panels(trainer: pl.Trainer, name: str, panels: Sequence[Tensor]) -> None:
    """Write panels, uint8 `[3, H, W]`, as ``<name>/image_000`` and so on."""
    for sink in trainer_sinks(trainer):
        for i, panel in enumerate(panels):
            sink.write_image(f"{name}/image_{i:03d}", panel, trainer.global_step)


def _caption(
    samples: Samples, explanations: Sequence[Explanation], i: int, settings: PictureSettings
) -> str:
    first = explanations[0]
    probabilities = class_logits(first.logits[i].float()).softmax(0)
    predicted = int(probabilities.argmax())
    parts = [f"predicted {_name(predicted, settings)} {float(probabilities[predicted]):.2f}"]
    if samples.labels is not None:
        parts.insert(0, f"label {_name(int(samples.labels[i]), settings)}")
    if int(first.target[i]) != predicted:
        parts.append(f"explained {_name(int(first.target[i]), settings)}")
    if samples.masks is not None:
        ignore = None if samples.ignore is None else samples.ignore[i : i + 1]
        scores = _average_precisions(samples.masks[i : i + 1], ignore, explanations, i)
        parts.append("AP " + ", ".join(f"{name} {score:.2f}" for name, score in scores.items()))
    return "  |  ".join(parts)


def _average_precisions(
    mask: Tensor, ignore: Tensor | None, explanations: Sequence[Explanation], i: int
) -> Mapping[str, float]:
    size = (mask.shape[-2], mask.shape[-1])
    return {
        e.rules.name: float(
            segmentation_average_precision(e.heatmap(size)[i : i + 1].cpu(), mask, ignore)
        )
        for e in explanations
    }


def _channels(data: pl.LightningDataModule | None, name: str) -> tuple[float, ...] | None:
    """Return the numbers, one per channel, that a data module has under a name, or None."""
    found = getattr(data, name, None)
    return None if found is None else tuple(torch.as_tensor(found).flatten().tolist())


def _name(index: int, settings: PictureSettings) -> str:
    names = settings.class_names
    return names[index] if names is not None and index < len(names) else str(index)
