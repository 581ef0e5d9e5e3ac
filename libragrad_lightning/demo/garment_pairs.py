"""Scenes of two garments side by side, to ask a classifier of single ones for each of them."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from libragrad_lightning.data.batches import SPLITS, Split, normalize
from libragrad_lightning.demo.composite_dataset import PIXEL_MEAN, PIXEL_STD
from libragrad_lightning.demo.compositing import (
    IMAGE_SIZE,
    load_backgrounds,
    load_garments,
    random_colors,
    random_crops,
)
from libragrad_lightning.demo.scattered_garments import Layer, Look, resized

_HALF = IMAGE_SIZE // 2


class GarmentPairs(Dataset[dict[str, Tensor]]):
    """Garments of two classes on a piece of a photograph, one in each half, always the same.

    Args:
        split: Which garments and photographs.
        count: How many scenes.
        garment_size: Smallest and largest height and width of a garment, pixels, up to 16.
        background_brightness: Factor on the photographs' pixel values, 0 (black) to 1 (as taken).

    Raises:
        ValueError: If a garment would not fit into its half.
    """

    def __init__(
        self,
        split: Split,
        count: int,
        garment_size: tuple[float, float] = (15, 16),
        background_brightness: float = 0.6,
    ) -> None:
        if not 0 < garment_size[0] <= garment_size[1] <= _HALF:
            raise ValueError(
                f"garment_size must hold two rising numbers of pixels up to {_HALF}, half of an "
                f"image, but is {garment_size}; change garment_size."
            )
        rng = np.random.default_rng([SPLITS.index(split), 2])
        garments = load_garments(split, 2000)
        first = rng.integers(2000, size=count)
        # The classes take turns, so that steps of less than ten lead to another one.
        second = (first + rng.integers(1, 10, size=count)) % 2000
        look = Look(garment_size, background_brightness, 0.0, mirrored=False)
        images = look.brightness * random_crops(load_backgrounds(split), count, IMAGE_SIZE, rng)
        left = rng.random(count) < 0.5
        layers = []
        for chosen, is_left in ((first, left), (second, ~left)):
            layer = resized(garments.images[chosen], look, (0, _HALF), rng)
            moved = _in_half(layer, is_left)
            images = moved.over(images.astype(np.float32), random_colors(count, rng))
            layers.append(moved)
        self._tensors = {
            "image": normalize(np.round(images).astype(np.uint8), PIXEL_MEAN, PIXEL_STD),
            "label": torch.from_numpy(garments.labels[first]),
            "mask": torch.from_numpy(layers[0].mask),
            "other_label": torch.from_numpy(garments.labels[second]),
            "other_mask": torch.from_numpy(layers[1].mask),
        }

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self._tensors["image"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one scene.

        Args:
            index: Position, 0 to N - 1.

        Returns:
            `image` `[3, 32, 32]` float32, `label` `[]` int64 and `mask` `[32, 32]` bool of one
            garment, `other_label` and `other_mask` of the other.
        """
        return {name: tensor[index] for name, tensor in self._tensors.items()}


def _in_half(layer: Layer, is_left: npt.NDArray[np.bool_]) -> Layer:
    """Move garments of the left half to the right one, except some, bool `[N]`."""
    stays = is_left[:, None, None]
    return Layer(
        *(np.where(stays, f, np.roll(f, _HALF, axis=2)) for f in (layer.shades, layer.opacity))
    )
