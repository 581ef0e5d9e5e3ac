"""The demo's task: which garment is it, wherever and however large it is?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from libragrad_lightning.data.batches import SPLITS, Bytes, Mask, Split, normalize
from libragrad_lightning.data.module import SplitDataModule
from libragrad_lightning.demo.composed_batches import ComposedBatches
from libragrad_lightning.demo.composite_dataset import PIXEL_MEAN, PIXEL_STD, CompositeDataset
from libragrad_lightning.demo.compositing import (
    IMAGE_SIZE,
    SHADES,
    Composites,
    Garments,
    load_backgrounds,
    load_garments,
    random_colors,
    random_crops,
)
from libragrad_lightning.demo.garments import GarmentsOnTextures

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """What composites look like.

    Attributes:
        garment_size: Smallest and largest height and width of a garment, pixels.
        brightness: Factor on the photographs' pixel values, 0 (black) to 1 (as taken).
        tint: How far red, green and blue of a photograph are brighter or darker, as a share.
        mirrored: Whether half of the garments are mirrored.
    """

    garment_size: tuple[float, float]
    brightness: float
    tint: float
    mirrored: bool


@dataclass(frozen=True)
class Layer:
    """Gray garments at their places, to be laid over photographs.

    Attributes:
        shades: Brightness times opacity, `[N, 32, 32]`, 0 to 255.
        opacity: Share of each pixel that the garment covers, `[N, 32, 32]`, 0 to 1.
    """

    shades: Floats
    opacity: Floats

    @property
    def mask(self) -> Mask:
        """Pixels at least half covered, `[N, 32, 32]`."""
        return self.opacity >= 0.5

    def over(self, below: Floats, colors: Floats) -> Floats:
        """Return pictures `[N, 32, 32, 3]`, 0 to 255, with the garments in colors `[N, 3]`."""
        above = self.shades[..., None] * colors[:, None, None]
        return np.asarray(above + (1 - self.opacity[..., None]) * below, np.float32)


class ScatteredGarments(SplitDataModule):
    """Fashion-MNIST garments in random colors and sizes, anywhere on pieces of photographs.

    Batches are dictionaries: `image` `[B, 3, 32, 32]` float32, normalized with `PIXEL_MEAN` and
    `PIXEL_STD`; `label` `[B]` int64; `mask` `[B, 32, 32]` bool, true where a garment covers at
    least half of a pixel. Neither the garments nor the photographs of validation and test occur in
    training. Training images are composed afresh in every epoch, from `seed`; those of validation
    and test are always the same.

    Args:
        batch_size: Images in a batch.
        num_train: Training garments, each in one image of an epoch, 1 to 16000.
        num_val: Validation images, 1 to 2000.
        num_test: Test images, 1 to 2000.
        garment_size: Smallest and largest height and width of a garment, pixels, 8 to 32.
        background_brightness: Factor on the photographs' pixel values, 0 (black) to 1 (as taken).
            The brighter the background, the harder the task.
        background_tint: How far red, green and blue of a photograph are brighter or darker in
            training, as a share, 0 to 1.
        seed: Seed of the training images.

    Raises:
        ValueError: If an argument is outside its range.
    """

    class_names = GarmentsOnTextures.class_names
    image_mean = PIXEL_MEAN
    image_std = PIXEL_STD

    def __init__(
        self,
        batch_size: int = 64,
        num_train: int = 16000,
        num_val: int = 2000,
        num_test: int = 2000,
        garment_size: tuple[float, float] = (18, 26),
        background_brightness: float = 0.6,
        background_tint: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, flip=False, num_workers=0)
        self.save_hyperparameters()
        smallest, largest = garment_size
        if not 8 <= smallest <= largest <= IMAGE_SIZE:
            raise ValueError(
                f"garment_size must hold two rising numbers of pixels from 8 to {IMAGE_SIZE}, but "
                f"is {garment_size}; change garment_size."
            )
        for name, share in (("brightness", background_brightness), ("tint", background_tint)):
            if not 0 <= share <= 1:
                raise ValueError(
                    f"background_{name} must lie between 0 and 1, but is {share}; change "
                    f"background_{name}."
                )
        self._counts: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}
        self._size, self._brightness = garment_size, background_brightness
        self._tint, self._seed = background_tint, seed

    def build(self, split: Split) -> Dataset[dict[str, Any]]:
        """Compose the images of validation or test, or prepare to compose those of training.

        Args:
            split: `"train"`, `"val"` or `"test"`.
        """
        if split != "train":
            return CompositeDataset(self.composites(split))
        garments, backgrounds = load_garments(split, self._counts[split]), load_backgrounds(split)
        count = -(-self._counts[split] // self.batch_size)
        return ComposedBatches(count, lambda number: self._batch(number, garments, backgrounds))

    def composites(self, split: Split) -> Composites:
        """Compose the images of validation or test, before they become tensors.

        Args:
            split: `"val"` or `"test"`.
        """
        garments = load_garments(split, self._counts[split])
        look = Look(self._size, self._brightness, 0.0, mirrored=False)
        rng = np.random.default_rng(SPLITS.index(split))
        return scatter(garments, load_backgrounds(split), look, rng)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the loader of the training batches, which are composed as they are loaded."""
        return DataLoader(self._datasets["train"], batch_size=None)

    def _batch(self, number: int, garments: Garments, backgrounds: Bytes) -> dict[str, Tensor]:
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        order = np.random.default_rng([self._seed, epoch]).permutation(len(garments.labels))
        chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
        some = Garments(garments.images[chosen], garments.labels[chosen])
        look = Look(self._size, self._brightness, self._tint, mirrored=True)
        rng = np.random.default_rng([self._seed, epoch, number])
        composites = scatter(some, backgrounds, look, rng)
        return {
            "image": normalize(composites.images, PIXEL_MEAN, PIXEL_STD),
            "label": torch.from_numpy(composites.labels),
            "mask": torch.from_numpy(composites.masks),
        }


def scatter(
    garments: Garments, backgrounds: Bytes, look: Look, rng: np.random.Generator
) -> Composites:
    """Lay every garment, in a random color and size, anywhere on a random piece of a photograph.

    Args:
        garments: N garments.
        backgrounds: Photographs, `[P, H, W, 3]` uint8.
        look: What composites look like.
        rng: Source of every random choice.

    Returns:
        N composites, in the order of the garments.
    """
    count = len(garments.labels)
    layer = resized(garments.images, look, (0, IMAGE_SIZE), rng)
    light = look.brightness * rng.uniform(1 - look.tint, 1 + look.tint, (count, 1, 1, 3))
    crops = random_crops(backgrounds, count, IMAGE_SIZE, rng)
    below = np.minimum(light.astype(np.float32) * crops, 255)
    images = np.round(layer.over(below, random_colors(count, rng))).astype(np.uint8)
    return Composites(images, garments.labels, layer.mask)


def resized(images: Bytes, look: Look, columns: tuple[int, int], rng: np.random.Generator) -> Layer:
    """Put garments at random sizes and places.

    Args:
        images: N garments as taken, `[N, 28, 28]`.
        look: How large they are.
        columns: First column that they may cover, and the one behind the last.
        rng: Source of every random choice.
    """
    count = len(images)
    taken = np.stack([np.where(images > 0, SHADES[images], 0), (images > 0) * np.float32(1)], 1)
    half = rng.uniform(*look.garment_size, count) / 2
    low, high = np.array([columns, (0, IMAGE_SIZE)]).T[:, :, None]
    centers = low + half + (high - low - 2 * half) * rng.random((2, count))
    side = np.where(rng.random(count) < (0.5 if look.mirrored else 0), -1.0, 1.0)
    zeros = np.zeros(count)
    # From places in the image, -1 to 1, to places in the garment as it was taken.
    factor = IMAGE_SIZE / 2 / half
    offset = (IMAGE_SIZE / 2 - centers) / half
    rows = [[side * factor, zeros, side * offset[0]], [zeros, factor, offset[1]]]
    theta = torch.tensor(np.array(rows), dtype=torch.float32).movedim(2, 0)
    grid = F.affine_grid(theta, [count, 2, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    placed = F.grid_sample(torch.from_numpy(taken).float(), grid, align_corners=False).numpy()
    return Layer(placed[:, 0], placed[:, 1])
