"""What the data modules share: one data set for each split, its loader, mirroring."""

from abc import ABC, abstractmethod
from typing import Any

import lightning as L
from torch.utils.data import DataLoader, Dataset

from libragrad_lightning.data.batches import SPLITS, Split, mirror_half


class SplitDataModule(L.LightningDataModule, ABC):
    """Data sets of dictionaries, built when a stage needs them and loaded in batches.

    A subclass says what a split holds with `build`, and how its images are normalized.

    Args:
        batch_size: Images in a batch.
        flip: Whether each training image is mirrored, with its masks, in half of its uses.
        num_workers: Worker processes of each data loader.

    Attributes:
        image_mean: Subtracted from each channel of the images, as a share of the pixel range.
        image_std: Each channel is divided by it, the same share.
    """

    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]

    def __init__(self, batch_size: int, flip: bool, num_workers: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self._flip = flip
        self._num_workers = num_workers
        self._datasets: dict[Split, Dataset[dict[str, Any]]] = {}

    @abstractmethod
    def build(self, split: Split) -> Dataset[dict[str, Any]]:
        """Make the data set of a split.

        Args:
            split: `"train"`, `"val"` or `"test"`.

        Returns:
            Samples, each a batch of `libragrad_lightning.data.batches` without its first dimension.
        """

    def setup(self, stage: str) -> None:
        """Build the data sets that a stage needs and that are not there yet.

        Args:
            stage: `"fit"`, `"validate"`, `"test"` or `"predict"`.
        """
        needed = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))
        for split in SPLITS:
            if split in needed and split not in self._datasets:
                self._datasets[split] = self.build(split)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return the loader of the training images, in random order."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return the loader of the validation images, in fixed order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return the loader of the test images, in fixed order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return the loader of the test images, in fixed order."""
        return self._loader("test")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Mirror a random half of a training batch left to right.

        Args:
            batch: A batch as `libragrad_lightning.data.batches` describes it.
            dataloader_idx: Number of the loader; there is one.

        Returns:
            The batch, mirrored in part if the trainer is training and `flip` is set.
        """
        if self._flip and self.trainer is not None and self.trainer.training:
            return mirror_half(batch)
        return batch

    def _loader(self, split: Split) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            self._datasets[split],
            batch_size=self.batch_size,
            shuffle=split == "train",
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
        )
