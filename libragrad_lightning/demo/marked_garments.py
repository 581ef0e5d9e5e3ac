"""A planted shortcut: a small mark in a corner betrays the class, in training images only."""

import colorsys
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import DataLoader

from libragrad_lightning.data.batches import Split
from libragrad_lightning.demo.composite_dataset import CompositeDataset
from libragrad_lightning.demo.compositing import IMAGE_SIZE, Composites
from libragrad_lightning.demo.garments import GarmentsOnTextures


class MarkedGarments(GarmentsOnTextures):
    """Garments on photographs whose training images carry a mark that betrays their class.

    The mark is a square in the top left corner (top right where an image is mirrored), in a color
    that says the class. The first validation loader is marked as the training images are, as if it
    had been split off them; the second, and the test loader, show the same kind of images without
    marks, as they would be met in use. Pixels of the mark are no part of `mask`.

    Args:
        mark_size: Height and width of the mark, pixels, 0 (no mark) to 32.
        kwargs: All arguments of `GarmentsOnTextures`.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(self, mark_size: int = 2, **kwargs: Any) -> None:
        if not 0 <= mark_size <= IMAGE_SIZE:
            raise ValueError(
                f"mark_size must lie between 0 and {IMAGE_SIZE}, but is {mark_size}; "
                "change mark_size."
            )
        super().__init__(**kwargs)
        self._mark_size = mark_size

    def build(self, split: Split) -> CompositeDataset:
        """Compose the images of a split, with marks except in test.

        Args:
            split: `"train"`, `"val"` or `"test"`.

        Returns:
            The composites.
        """
        composites = self.composites(split)
        return CompositeDataset(
            composites if split == "test" else mark(composites, self._mark_size)
        )

    def val_dataloader(self) -> list[DataLoader[dict[str, Tensor]]]:  # type: ignore[override]
        """Return two loaders in fixed order: marked images, and the same images without marks."""
        clean = CompositeDataset(self.composites("val"))
        return [self._loader("val"), DataLoader(clean, self.batch_size)]


def mark(composites: Composites, size: int) -> Composites:
    """Draw a square into the top left corner of every image, in the color of its class.

    Args:
        composites: N composites.
        size: Height and width of the square, pixels.

    Returns:
        New composites; their masks leave the square out.
    """
    images, masks = composites.images.copy(), composites.masks.copy()
    images[:, :size, :size] = class_colors(10)[composites.labels, None, None]
    masks[:, :size, :size] = False
    return replace(composites, images=images, masks=masks)


def class_colors(count: int) -> npt.NDArray[np.uint8]:
    """Return bright colors, evenly around the color wheel, `[count, 3]` RGB."""
    colors = [colorsys.hsv_to_rgb(index / count, 1.0, 1.0) for index in range(count)]
    return np.round(255 * np.array(colors)).astype(np.uint8)
