"""What the figures show: held-out scenes, and photographs that may be passed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from findings_work import Subject, scenes
from PIL import Image
from torch import Tensor

from libragrad_lightning.data import CutoutDataModule
from libragrad_lightning.data.batches import Bytes, normalise

CLASSES: Mapping[str, str] = {
    "cat": "mammal",
    "flower": "flower",
    "raccoon": "mammal",
    "rocket": "vehicle",
}
"""The photographs beside this file, with their classes."""

PAIRS = (("cat", "flower"), ("rocket", "raccoon"), ("raccoon", "flower"))
"""Photographs that are shown side by side."""

_FOLDER = Path(__file__).parent / "assets"


def scenes_of_each_class(subject: Subject, count: int) -> dict[str, Tensor]:
    """Return the first held-out scene of every class.

    Args:
        subject: The model whose scenes they are.
        count: Scenes of the study.
    """
    found: dict[int, dict[str, Tensor]] = {}
    data = scenes(subject, count, 1)
    for i in range(count):
        found.setdefault(int(data[i]["label"]), data[i])
    return _collated([found[label] for label in sorted(found)])


def scenes_of_two(subject: Subject, count: int, shown: int) -> dict[str, Tensor]:
    """Return the first held-out scenes with two objects.

    Args:
        subject: The model whose scenes they are.
        count: Scenes of the study.
        shown: How many are returned.
    """
    data = scenes(subject, count, 2)
    return _collated([data[i] for i in range(shown)])


def photographs(data: CutoutDataModule) -> dict[str, Tensor]:
    """Return the photographs, without masks.

    Args:
        data: Tells their size, normalisation and classes.
    """
    size = data.hparams["image_size"]
    images = np.stack([_read(name, size, size) for name in CLASSES])
    labels = [data.class_names.index(label) for label in CLASSES.values()]
    return {"image": _normalised(data, images), "label": torch.tensor(labels)}


def photograph_pairs(data: CutoutDataModule) -> dict[str, Tensor]:
    """Return halves of two photographs side by side; a mask is the half of its class.

    Args:
        data: Tells their size, normalisation and classes.
    """
    size = data.hparams["image_size"]
    images = np.stack(
        [np.concatenate([_read(n, size, size // 2) for n in names], axis=1) for names in PAIRS]
    )
    first, other = (
        torch.tensor([data.class_names.index(CLASSES[names[i]]) for names in PAIRS]) for i in (0, 1)
    )
    left = (torch.arange(size) < size // 2).expand(len(PAIRS), size, size)
    return {
        "image": _normalised(data, images),
        "label": first,
        "mask": left,
        "other_label": other,
        "other_mask": ~left,
    }


def once_for_each_class(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return images with two objects twice, with the label and mask of either."""
    return {
        "image": batch["image"].repeat_interleave(2, 0),
        "label": torch.stack([batch["label"], batch["other_label"]], 1).flatten(),
        "mask": torch.stack([batch["mask"], batch["other_mask"]], 1).flatten(0, 1),
    }


def _read(name: str, height: int, width: int) -> Bytes:
    """Return the middle of a photograph, as high as it is."""
    with Image.open(_FOLDER / f"{name}.jpg") as file:
        span = file.height * width / height
        left = (file.width - span) / 2
        box = (left, 0, left + span, file.height)
        return np.asarray(file.resize((width, height), Image.Resampling.BICUBIC, box))


def _normalised(data: CutoutDataModule, images: Bytes) -> Tensor:
    return normalise(images, data.image_mean, data.image_std)


def _collated(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
