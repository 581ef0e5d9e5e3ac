"""A small, self-contained classification task with masks: garments on photographs."""

from typing import Any

import lightning as L
import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from libragrad_lightning.data.composite_dataset import CompositeDataset, mirror_half
from libragrad_lightning.data.compositing import (
    Split,
    compose,
    load_backgrounds,
    load_garments,
)

_SPLITS: tuple[Split, ...] = ("train", "val", "test")


class GarmentsOnTextures(L.LightningDataModule):
    """Fashion-MNIST garments, in random colours, on pieces of photographs.

    Batches are dictionaries: `image` `[B, 3, 32, 32]` float32, normalised with `PIXEL_MEAN` and
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
        max_shift: Largest displacement of a garment from the centre, pixels, 0 to 2.
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
        super().__init__()
        _check_range("background_brightness", background_brightness, 1)
        _check_range("max_shift", max_shift, 2)
        self.save_hyperparameters()
        self.batch_size = batch_size
        self._counts: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}
        self._background_brightness = background_brightness
        self._max_shift = max_shift
        self._flip = flip
        self._seed = seed
        self._num_workers = num_workers
        self._datasets: dict[Split, CompositeDataset] = {}

    def setup(self, stage: str) -> None:
        """Compose the images that a stage needs and that are not there yet.

        Args:
            stage: `"fit"`, `"validate"`, `"test"` or `"predict"`.
        """
        needed = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))
        for split in _SPLITS:
            if split in needed and split not in self._datasets:
                self._datasets[split] = self._compose(split)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the loader of the training composites, in random order."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the loader of the validation composites, in fixed order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the loader of the test composites, in fixed order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the loader of the test composites, in fixed order."""
        return self._loader("test")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Mirror a random half of a training batch left to right.

        Args:
            batch: A batch as the class describes it.
            dataloader_idx: Number of the loader; there is one.

        Returns:
            The batch, mirrored in part if the trainer is training and `flip` is set.
        """
        if self._flip and self.trainer is not None and self.trainer.training:
            return mirror_half(batch)
        return batch

    def _compose(self, split: Split) -> CompositeDataset:
        seed = self._seed if split == "train" else 0
        composites = compose(
            load_garments(split, self._counts[split]),
            load_backgrounds(split),
            self._background_brightness,
            self._max_shift,
            np.random.default_rng([seed, _SPLITS.index(split)]),
        )
        return CompositeDataset(composites)

    def _loader(self, split: Split) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(
            self._datasets[split],
            batch_size=self.batch_size,
            shuffle=split == "train",
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
        )


def _check_range(name: str, value: float, largest: float) -> None:
    if not 0 <= value <= largest:
        raise ValueError(f"{name} must lie between 0 and {largest}, but is {value}; change {name}.")
