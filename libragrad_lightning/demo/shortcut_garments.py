"""Garments with a planted shortcut: something that betrays the class, in training images only."""

from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from libragrad_lightning.data.batches import SPLITS, Split
from libragrad_lightning.demo.composite_dataset import CompositeDataset
from libragrad_lightning.demo.compositing import IMAGE_SIZE
from libragrad_lightning.demo.garments import GarmentsOnTextures
from libragrad_lightning.demo.shortcuts import CUES, Planting, Shortcut, plant


class ShortcutGarments(GarmentsOnTextures):
    """Garments on photographs whose training images carry a cue that betrays their class.

    The first validation loader has the cue as the training images do, as if it had been split off
    them; the second, and the test loader, show the same kind of images without it, as they would
    be met in use. Cues are

    - ``mark``: a square in the top left corner (top right where an image is
      mirrored), in a color that says the class; its pixels are no part of `mask`,
    - ``color``: the garment has the color of its class,
    - ``background``: everything but the garment has it,
    - ``texture``: everything but the garment has gray stripes, whose direction and period say the
      class.

    Args:
        shortcut: The kind of cue.
        strength: Its opacity, 0 (no cue) to 1.
        mark_size: Height and width of a mark, pixels, 1 to 32.
        kwargs: All arguments of `GarmentsOnTextures`.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        shortcut: Shortcut = "mark",
        strength: float = 1.0,
        mark_size: int = 2,
        **kwargs: Any,
    ) -> None:
        if shortcut not in CUES:
            raise ValueError(
                f"shortcut must be one of {', '.join(CUES)}, but is {shortcut!r}; change shortcut."
            )
        if not 0 <= strength <= 1:
            raise ValueError(
                f"strength must lie between 0 and 1, but is {strength}; change strength."
            )
        if not 1 <= mark_size <= IMAGE_SIZE:
            raise ValueError(
                f"mark_size must lie between 1 and {IMAGE_SIZE}, but is {mark_size}; "
                "change mark_size."
            )
        super().__init__(**kwargs)
        self._planting = Planting(shortcut, strength, mark_size)

    def build(self, split: Split) -> CompositeDataset:
        """Compose the images of a split, with the cue except in test.

        Args:
            split: `"train"`, `"val"` or `"test"`.

        Returns:
            The composites.
        """
        composites = self.composites(split)
        if split == "test":
            return CompositeDataset(composites)
        seed = self._seed if split == "train" else 0
        rng = np.random.default_rng([seed, SPLITS.index(split), len(SPLITS)])
        return CompositeDataset(plant(composites, self._planting, rng))

    def val_dataloader(self) -> list[DataLoader[dict[str, Tensor]]]:  # type: ignore[override]
        """Return two loaders in fixed order: images with the cue, and the same without it."""
        clean = CompositeDataset(self.composites("val"))
        return [self._loader("val"), DataLoader(clean, self.batch_size)]
