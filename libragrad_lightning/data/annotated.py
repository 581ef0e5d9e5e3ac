"""Annotated images as samples: read from a record, transformed as the model needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from libragrad_lightning.data.batches import Mask
from libragrad_lightning.data.transforms import EvalTransform

Record = TypeVar("Record")


@dataclass(frozen=True)
class AnnotatedImage:
    """An image as it is stored, with what is known of it.

    Attributes:
        image: RGB, height H and width W.
        label: The class to be explained.
        mask: Pixels of that class, `[H, W]`, or None.
        ignore: Pixels that are neither object nor background, `[H, W]`, or None.
        other_label: Class of a second object, or None.
        other_mask: Pixels of the second object's class, `[H, W]`, or None.
    """

    image: Image.Image
    label: int
    mask: Mask | None = None
    ignore: Mask | None = None
    other_label: int | None = None
    other_mask: Mask | None = None


class AnnotatedDataset(Dataset[dict[str, Tensor]], Generic[Record]):
    """Samples of the form that `libragrad_lightning.data.batches` describes.

    Args:
        records: What `read` needs for each image.
        read: Reads one image; has to be picklable for data loaders with workers.
        transform: The model's evaluation transform.
    """

    def __init__(
        self,
        records: Sequence[Record],
        read: Callable[[Record], AnnotatedImage],
        transform: EvalTransform,
    ) -> None:
        self._records = records
        self._read = read
        self._transform = transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Read and transform one image.

        Args:
            index: Position, 0 to N - 1.

        Returns:
            `image` `[3, S, S]`, `label` `[]`, and those of `mask`, `ignore`, `other_label` and
            `other_mask` that the data set has.
        """
        annotated = self._read(self._records[index])
        labels = {"label": annotated.label, "other_label": annotated.other_label}
        masks = {
            "mask": annotated.mask,
            "ignore": annotated.ignore,
            "other_mask": annotated.other_mask,
        }
        sample = {"image": self._transform.image(annotated.image)}
        sample |= {key: torch.tensor(label) for key, label in labels.items() if label is not None}
        present = {key: mask for key, mask in masks.items() if mask is not None}
        if present:
            stacked = torch.from_numpy(np.stack(list(present.values())))
            sample |= dict(zip(present, self._transform.masks(stacked), strict=True))
        return sample


def choose(records: Sequence[Record], count: int | None, seed: int) -> list[Record]:
    """Draw some records without replacement.

    Args:
        records: To choose from.
        count: How many at most, or None for all of them, in their order.
        seed: Of NumPy's `default_rng`, whose permutation is cut off after `count`.

    Returns:
        The chosen records.
    """
    if count is None:
        return list(records)
    order = np.random.default_rng(seed).permutation(len(records))[:count]
    return [records[index] for index in order]


def check_same_size(image: Image.Image, mask: Mask, path: Path) -> None:
    """Refuse a mask whose size is not that of its image.

    Args:
        image: Height H and width W.
        mask: `[H, W]`.
        path: The image's or the mask's file, for the error.

    Raises:
        ValueError: If the sizes differ.
    """
    height, width = mask.shape
    if (width, height) == image.size:
        return
    sizes = f"{width} x {height} pixels, but its image has {image.width} x {image.height}"
    if (height, width) == image.size:
        raise ValueError(
            f"The mask of {path} has {sizes}, probably since it was drawn without the EXIF "
            "orientation of the photograph, which is shown upright here; turn the mask, or save "
            "the photograph without that orientation."
        )
    raise ValueError(f"The mask of {path} has {sizes}; replace one of the two.")
