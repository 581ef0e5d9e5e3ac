"""What the figures show: held-out scenes, and scenes whose parts may be passed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from findings_work import Subject, scenes
from free_scenes import FreeScenes
from libragrad_lightning.data import CutoutDataModule
from libragrad_lightning.data.scenes.composition import Composition

_CLASSES = ("mammal", "flower")
"""Of the cut-outs whose pictures may be passed on."""


def scenes_of_each_class(subject: Subject, count: int) -> dict[str, Tensor]:
    """Return the first held-out scene of every class.

    Args:
        subject: The model whose scenes they are.
        count: Scenes of the study.
    """
    return _first_of_each_class(scenes(subject, count, 1), per_class=1)


def scenes_of_two(subject: Subject, count: int, shown: int) -> dict[str, Tensor]:
    """Return the first held-out scenes with two objects.

    Args:
        subject: The model whose scenes they are.
        count: Scenes of the study.
        shown: How many are returned.
    """
    data = scenes(subject, count, 2)
    return _collated([data[i] for i in range(shown)])


def free_scenes(data: CutoutDataModule) -> dict[str, Tensor]:
    """Return scenes whose parts may be passed on: the first two of each class.

    Args:
        data: Tells their size, normalization and classes.
    """
    return _first_of_each_class(_free(data, num_objects=1), per_class=2)


def free_scenes_of_two(data: CutoutDataModule, shown: int) -> dict[str, Tensor]:
    """Return the first scenes with two objects whose parts may be passed on.

    Args:
        data: Tells their size, normalization and classes.
        shown: How many are returned.
    """
    composed = _free(data, num_objects=2)
    return _collated([composed[i] for i in range(shown)])


def once_for_each_class(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return images with two objects twice, with the label and mask of either."""
    return {
        "image": batch["image"].repeat_interleave(2, 0),
        "label": torch.stack([batch["label"], batch["other_label"]], 1).flatten(),
        "mask": torch.stack([batch["mask"], batch["other_mask"]], 1).flatten(0, 1),
    }


def _free(data: CutoutDataModule, num_objects: int) -> FreeScenes:
    """Return scenes that are composed like those of a data module."""
    of = data.hparams
    composition = Composition(of["image_size"], num_objects, of["object_size"], shortcut=0.0)
    labels = [data.class_names.index(name) for name in _CLASSES]
    return FreeScenes(composition, labels, data.image_mean, data.image_std)


def _first_of_each_class(samples: Dataset[dict[str, Tensor]], per_class: int) -> dict[str, Tensor]:
    """Return the first samples of every class, class by class."""
    found: dict[int, list[Mapping[str, Tensor]]] = {}
    for i in range(len(samples)):  # type: ignore[arg-type]
        found.setdefault(int(samples[i]["label"]), []).append(samples[i])
    return _collated([sample for label in sorted(found) for sample in found[label][:per_class]])


def _collated(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
