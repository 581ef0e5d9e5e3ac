"""Scenes whose parts may be passed on: a raccoon and a flower on the demo's backgrounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from libragrad_lightning import demo
from libragrad_lightning.data.scenes.composition import Composition, SceneParts
from libragrad_lightning.data.scenes.cutouts import read_background, read_cutout
from libragrad_lightning.data.scenes.datasets import SceneDataset

CUTOUTS = ("raccoon", "flower")
"""The cut-outs in `assets`."""

_OBJECTS = Path(__file__).parent / "assets"
_PLACES = Path(demo.__file__).parent / "assets"
_BACKGROUNDS = ("train_grass", "held_out_gravel", "train_brick", "train_camera")
"""Those of the demo's backgrounds that show a place without an object."""
_COUNT = 100


class FreeScenes(Dataset[dict[str, Tensor]]):
    """Scenes whose parts may be passed on.

    Args:
        composition: How they are composed.
        labels: The classes of the cut-outs.
        mean: Subtracted from each channel, as a share of the pixel range.
        std: Each channel is divided by it, the same share.
    """

    def __init__(
        self,
        composition: Composition,
        labels: Sequence[int],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        size = composition.image_size
        parts = SceneParts(
            [[read_cutout(_OBJECTS / f"{name}.png", size)] for name in CUTOUTS],
            [
                read_background(_PLACES / f"background_{name}.png", 2 * size)
                for name in _BACKGROUNDS
            ],
        )
        self._scenes = SceneDataset(parts, composition, _COUNT, (0,), mean, std)
        self._labels = torch.tensor(labels)

    def __len__(self) -> int:
        """Return the number of scenes."""
        return _COUNT

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return a scene as a sample of `libragrad_lightning.data.scenes.datasets.SceneDataset`."""
        sample = self._scenes[index]
        return {n: self._labels[v] if n.endswith("label") else v for n, v in sample.items()}
