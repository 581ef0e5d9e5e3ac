"""Scenes as data sets: composed when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, tensor
from torch.utils.data import Dataset

from libragrad_lightning.data.batches import normalize
from libragrad_lightning.data.scenes.composition import (
    Composition,
    Scene,
    SceneParts,
    compose_scene,
)


class SceneDataset(Dataset[dict[str, Tensor]]):
    """Scenes, composed when they are asked for; a scene depends on its index and the seed alone.

    Args:
        parts: Cut-outs and photographs.
        composition: How they are put together.
        length: Number of scenes.
        seed: Seed of every random choice.
        mean: Subtracted from each channel, as a share of the pixel range.
        std: Each channel is divided by it, the same share.
    """

    def __init__(
        self,
        parts: SceneParts,
        composition: Composition,
        length: int,
        seed: tuple[int, ...],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self._parts = parts
        self._composition = composition
        self._length = length
        self._seed = seed
        self._mean, self._std = mean, std

    def __len__(self) -> int:
        """Return the number of scenes."""
        return self._length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Compose one scene.

        Args:
            index: Position, 0 to N - 1.

        Returns:
            `image` `[3, H, W]` float32, `label` `[]` int64, `mask` `[H, W]` bool, and with two
            objects `other_label` and `other_mask`.

        Raises:
            IndexError: If there is no such scene.
        """
        scene = self.scene(index)
        sample = {"image": normalize(scene.image, self._mean, self._std)}
        for prefix, placed in zip(("", "other_"), scene.objects, strict=False):
            sample[f"{prefix}label"] = tensor(placed.label)
            sample[f"{prefix}mask"] = tensor(placed.mask)
        return sample

    def scene(self, index: int) -> Scene:
        """Compose one scene, and tell which objects it shows.

        Args:
            index: Position, 0 to N - 1.

        Raises:
            IndexError: If there is no such scene.
        """
        if not 0 <= index < self._length:
            raise IndexError(f"There are {self._length} scenes, but scene {index} was asked for.")
        rng = np.random.default_rng(self._numbers(index))
        return compose_scene(self._parts, self._composition, rng)

    def _numbers(self, index: int) -> list[int]:
        """Return what a scene depends on."""
        return [*self._seed, index]


class FreshSceneDataset(SceneDataset):
    """Scenes that are composed afresh whenever they are asked for.

    What a scene shows depends on the state of torch's generator beside the seed, so that a run that
    is repeated from `seed_everything` sees the same scenes, and no epoch those of another.
    """

    def _numbers(self, index: int) -> list[int]:
        return [*super()._numbers(index), int(torch.randint(2**31, ()))]


class AskedTwice(Dataset[dict[str, Tensor]]):
    """Scenes with two objects, each twice: asked for its first object, then for its second.

    Args:
        scenes: Scenes with two objects, each with `other_label` and `other_mask`.
    """

    def __init__(self, scenes: Dataset[dict[str, Tensor]]) -> None:
        self._scenes = scenes

    def __len__(self) -> int:
        """Return the number of questions."""
        return 2 * len(self._scenes)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Ask one question.

        Args:
            index: Position, 0 to 2N - 1.

        Returns:
            `image` `[3, H, W]` float32, the object that is asked for as `label` `[]` int64 and
            `mask` `[H, W]` bool, and the other one as `other_label` and `other_mask`.

        Raises:
            IndexError: If there is no such question.
        """
        sample = self._scenes[index // 2]
        if index % 2 == 0:
            return sample
        swapped = {f"other_{name}": sample[name] for name in ("label", "mask")}
        return sample | swapped | {name: sample[f"other_{name}"] for name in ("label", "mask")}
