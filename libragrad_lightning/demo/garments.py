"""A small, self-contained classification task with masks: garments on photographs."""

import numpy as np

from libragrad_lightning.data.batches import SPLITS, Split
from libragrad_lightning.data.module import SplitDataModule
from libragrad_lightning.demo.composite_dataset import PIXEL_MEAN, PIXEL_STD, CompositeDataset
from libragrad_lightning.demo.compositing import (
    Composites,
    compose,
    load_backgrounds,
    load_garments,
)


class GarmentsOnTextures(SplitDataModule):
    """Fashion-MNIST garments, in random colors, on pieces of photographs.

    Batches are dictionaries: `image` `[B, 3, 32, 32]` float32, normalized with `PIXEL_MEAN` and
    `PIXEL_STD`; `label` `[B]` int64; `mask` `[B, 32, 32]` bool, true on the garment. Neither the
    garments nor the photographs of validation and test occur in training. Validation and test
    composites are always the same; training composites depend on `seed`.

    Args:
        batch_size: Images in a batch.
        num_train: Training images, 1 to 16000.
        num_val: Validation images, 1 to 2000.
        num_test: Test images, 1 to 2000.
        background_brightness: Factor on the photographs' pixel values, 0 (black) to 1 (as taken).
            The brighter the background, the harder the task.
        max_shift: Largest displacement of a garment from the center, pixels, 0 to 2.
        flip: Whether each training image is mirrored, with its mask, in half of its uses.
        seed: Seed of the training composites.
        num_workers: Worker processes of each data loader.

    Raises:
        ValueError: If `background_brightness` or `max_shift` is outside its range.
    """

    class_names = (
        "T-shirt",
        "trousers",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )
    image_mean = PIXEL_MEAN
    image_std = PIXEL_STD

    def __init__(
        self,
        batch_size: int = 32,
        num_train: int = 16000,
        num_val: int = 2000,
        num_test: int = 2000,
        background_brightness: float = 0.6,
        max_shift: int = 2,
        flip: bool = True,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, flip, num_workers)
        _check_range("background_brightness", background_brightness, 1)
        _check_range("max_shift", max_shift, 2)
        self.save_hyperparameters()
        self._counts: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}
        self._background_brightness = background_brightness
        self._max_shift = max_shift
        self._seed = seed

    def build(self, split: Split) -> CompositeDataset:
        """Compose the images of a split.

        Args:
            split: `"train"`, `"val"` or `"test"`.

        Returns:
            The composites.
        """
        return CompositeDataset(self.composites(split))

    def composites(self, split: Split) -> Composites:
        """Compose the images of a split.

        Args:
            split: `"train"`, `"val"` or `"test"`.

        Returns:
            Images, labels and masks, before they become tensors.
        """
        seed = self._seed if split == "train" else 0
        return compose(
            load_garments(split, self._counts[split]),
            load_backgrounds(split),
            self._background_brightness,
            self._max_shift,
            np.random.default_rng([seed, SPLITS.index(split)]),
        )


def _check_range(name: str, value: float, largest: float) -> None:
    if not 0 <= value <= largest:
        raise ValueError(f"{name} must lie between 0 and {largest}, but is {value}; change {name}.")
