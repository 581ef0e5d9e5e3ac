"""Scenes of two garments, with texts that are true of some of them and not of others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from libragrad_lightning.data.batches import SPLITS, Bytes, Split, normalize
from libragrad_lightning.data.module import SplitDataModule
from libragrad_lightning.demo.composed_batches import ComposedBatches
from libragrad_lightning.demo.compositing import load_backgrounds
from libragrad_lightning.demo.phrases import (
    CLASS_PROMPTS,
    COLORS,
    Texts,
    Things,
    class_texts,
    draw_texts,
)
from libragrad_lightning.demo.scenes import (
    HELD_OUT,
    CutOuts,
    Scenes,
    close_ups,
    compose_scenes,
    draw_things,
    load_cut_outs,
)

SCENE_MEAN = (0.26, 0.21, 0.17)
"""Mean of the training scenes' red, green and blue, as a share of the pixel range."""

SCENE_STD = (0.18, 0.15, 0.17)
"""Standard deviation of the training scenes' red, green and blue, as the same share."""

_SEEN_CLASSES = np.array([p for p in class_texts().phrases if (p[0, 0], p[0, 1]) not in HELD_OUT])
"""The phrases for every color of every kind that training scenes show.

They are among the texts of every batch. For a scene of a red bag and a blue boot, "a blue bag" is
the text that is hard to tell from the true ones: without it, colors and kinds are learned, but not
which belong together.
"""

_NUM_GARMENTS: dict[Split, int] = {"train": 16000, "val": 2000, "test": 2000}


class TwoGarments(SplitDataModule):
    """Scenes of two garments in different places, and texts about them.

    A training batch is a dictionary of `image` `[B, 3, 48, 48]` float32, normalized with
    `SCENE_MEAN` and `SCENE_STD`; `text`, a list of T strings such as ``"a red bag at the top
    left"``; and `true` `[B, T]` bool, which text is true of which image. Among the texts are always
    those for every color of every kind. No scene is shown twice. In the first epochs images are
    close-ups `[2B, 3, 24, 24]` of each garment, where kinds are learned much faster.

    Validation and test batches hold the prompts of the first and the second garment, positions in
    `class_names`, as `label` and `other_label` `[B]` int64, and their pixels as `mask` and
    `other_mask` `[B, 48, 48]` bool; `true` `[B, 42]` says which prompts are true. Garments and
    photographs never occur in training, nor do three pairs of kind and color (`HELD_OUT`).

    Args:
        batch_size: Scenes in a batch.
        captions: Share of texts that name both garments, 0 to 1.
        steps_per_epoch: Training batches in an epoch.
        close_up_epochs: How many epochs at the beginning show close-ups.
        num_val: Validation scenes.
        num_test: Test scenes.
        background_brightness: Factor on the photographs' pixel values, 0 (black) to 1 (as taken).
        background_tint: How far red, green and blue of a photograph are brighter or darker in
            training, as a share, 0 to 1.
        seed: Seed of the training scenes and their texts.
    """

    class_names = CLASS_PROMPTS
    image_mean = SCENE_MEAN
    image_std = SCENE_STD

    def __init__(
        self,
        batch_size: int = 32,
        captions: float = 0.1,
        steps_per_epoch: int = 250,
        close_up_epochs: int = 3,
        num_val: int = 500,
        num_test: int = 500,
        background_brightness: float = 0.4,
        background_tint: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, flip=False, num_workers=0)
        self.save_hyperparameters()
        self._captions = captions
        self._steps, self._close_up_epochs = steps_per_epoch, close_up_epochs
        self._counts: dict[Split, int] = {"val": num_val, "test": num_test}
        self._brightness, self._tint = background_brightness, background_tint
        self._seed = seed

    def build(self, split: Split) -> Dataset[dict[str, Tensor]]:
        """Compose the scenes of validation or test, or prepare to compose those of training.

        Args:
            split: `"train"`, `"val"` or `"test"`.
        """
        cut_outs, backgrounds = load_cut_outs(split, _NUM_GARMENTS[split]), load_backgrounds(split)
        if split == "train":
            return ComposedBatches(self._steps, lambda n: self._batch(n, cut_outs, backgrounds))
        return SceneDataset(self.scenes(split))

    def scenes(self, split: Split) -> Scenes:
        """Compose the scenes of validation or test.

        Args:
            split: `"val"` or `"test"`.
        """
        rng = np.random.default_rng(SPLITS.index(split))
        things = draw_things(self._counts[split], held_out=True, rng=rng)
        cut_outs, backgrounds = load_cut_outs(split, _NUM_GARMENTS[split]), load_backgrounds(split)
        return compose_scenes(things, cut_outs, backgrounds, self._brightness, 0.0, rng)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the loader of the training batches, which are composed as they are loaded."""
        return DataLoader(self._datasets["train"], batch_size=None)

    def _batch(self, number: int, cut_outs: CutOuts, backgrounds: Bytes) -> dict[str, Any]:
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        rng = np.random.default_rng([self._seed, epoch, number])
        things = draw_things(self.batch_size, held_out=False, rng=rng)
        scenes = compose_scenes(things, cut_outs, backgrounds, self._brightness, self._tint, rng)
        is_close = epoch < self._close_up_epochs
        scenes = close_ups(scenes) if is_close else scenes
        texts = self._texts(scenes.things, is_close, rng)
        return {
            "image": normalize(scenes.images, SCENE_MEAN, SCENE_STD),
            "text": texts.words(),
            "true": torch.from_numpy(texts.true_of(scenes.things)),
        }

    def _texts(self, things: Things, is_close: bool, rng: np.random.Generator) -> Texts:
        """Return all class texts, and for scenes texts drawn about them."""
        if is_close:
            return Texts(_SEEN_CLASSES)
        drawn = draw_texts(things, self._captions, rng)
        return Texts(np.unique(np.concatenate([drawn.phrases, _SEEN_CLASSES]), axis=0))


class SceneDataset(Dataset[dict[str, Tensor]]):
    """Scenes as normalized tensors, with the prompts of their garments.

    Args:
        scenes: N scenes.
    """

    def __init__(self, scenes: Scenes) -> None:
        labels = torch.from_numpy(scenes.things[..., 0] * len(COLORS) + scenes.things[..., 1])
        self._tensors = {
            "image": normalize(scenes.images, SCENE_MEAN, SCENE_STD),
            "label": labels[:, 0],
            "mask": torch.from_numpy(scenes.masks[:, 0]),
            "other_label": labels[:, 1],
            "other_mask": torch.from_numpy(scenes.masks[:, 1]),
            "true": torch.from_numpy(class_texts().true_of(scenes.things)),
        }

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self._tensors["image"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one scene, as a row of a validation batch of `TwoGarments`.

        Args:
            index: Position, 0 to N - 1.
        """
        return {name: tensor[index] for name, tensor in self._tensors.items()}
