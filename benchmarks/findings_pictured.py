"""What the figures show: held-out scenes, and scenes whose parts may be passed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from findings_work import Subject, scenes
from libragrad_lightning import demo
from libragrad_lightning.data import CutoutDataModule
from libragrad_lightning.data.scenes.composition import Composition, SceneParts
from libragrad_lightning.data.scenes.cutouts import read_background, read_cutout
from libragrad_lightning.data.scenes.datasets import SceneDataset

CUTOUTS: Mapping[str, str] = {"raccoon": "mammal", "flower": "flower"}
"""The cut-outs in `assets`, with their classes."""

_OBJECTS = Path(__file__).parent / "assets"
_PLACES = Path(demo.__file__).parent / "assets"
_BACKGROUNDS = ("train_grass", "held_out_gravel", "train_brick", "train_camera")
"""Those of the demo's backgrounds that show a place without an object."""


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
    composed = _composed(data, num_objects=1)
    return _with_classes_of(data, _first_of_each_class(composed, per_class=2))


def free_scenes_of_two(data: CutoutDataModule, shown: int) -> dict[str, Tensor]:
    """Return the first scenes with two objects whose parts may be passed on.

    Args:
        data: Tells their size, normalization and classes.
        shown: How many are returned.
    """
    composed = _composed(data, num_objects=2)
    return _with_classes_of(data, _collated([composed[i] for i in range(shown)]))


def once_for_each_class(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return images with two objects twice, with the label and mask of either."""
    return {
        "image": batch["image"].repeat_interleave(2, 0),
        "label": torch.stack([batch["label"], batch["other_label"]], 1).flatten(),
        "mask": torch.stack([batch["mask"], batch["other_mask"]], 1).flatten(0, 1),
    }


def _composed(data: CutoutDataModule, num_objects: int) -> SceneDataset:
    """Return scenes that are composed like those of a data module, labelled 0 and 1."""
    size = data.hparams["image_size"]
    places = [_PLACES / f"background_{name}.png" for name in _BACKGROUNDS]
    parts = SceneParts(
        [[read_cutout(_OBJECTS / f"{name}.png", size)] for name in CUTOUTS],
        [read_background(path, 2 * size) for path in places],
    )
    composition = Composition(size, num_objects, data.hparams["object_size"], shortcut=0.0)
    return SceneDataset(parts, composition, 100, (0,), data.image_mean, data.image_std)


def _with_classes_of(data: CutoutDataModule, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    classes = torch.tensor([data.class_names.index(label) for label in CUTOUTS.values()])
    return {name: classes[of] if name.endswith("label") else of for name, of in batch.items()}


def _first_of_each_class(samples: SceneDataset, per_class: int) -> dict[str, Tensor]:
    """Return the first samples of every class, class by class."""
    found: dict[int, list[Mapping[str, Tensor]]] = {}
    for i in range(len(samples)):
        found.setdefault(int(samples[i]["label"]), []).append(samples[i])
    return _collated([sample for label in sorted(found) for sample in found[label][:per_class]])


def _collated(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
