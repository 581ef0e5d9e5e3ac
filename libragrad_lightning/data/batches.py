"""The one form of every batch here, and what is done to batches of that form.

A batch is a dictionary of

- `image`: `[B, 3, H, W]` float32, normalized;
- `label`: `[B]` int64, the class that an explanation is asked for;
- `mask`: `[B, H, W]` bool, true on the pixels of that class (where the data set has masks);
- `ignore`: `[B, H, W]` bool, true on pixels that are neither object nor background (where the data
  set marks such pixels);
- `other_label`, `other_mask`: the same as `label` and `mask` for a second object of another class
  (where every image has one).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_PICTURES = ("image", "mask", "ignore", "other_mask")


def normalize(images: Bytes, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn RGB bytes into the floats that a model is trained on.

    Args:
        images: `[..., H, W, 3]` uint8.
        mean: Subtracted from each channel, as a share of the pixel range.
        std: Each channel is divided by it, the same share.

    Returns:
        `[..., 3, H, W]` float32, contiguous.
    """
    shares = torch.from_numpy(images).movedim(-1, -3).contiguous() / 255
    return functional.normalize(shares, [*mean], [*std])


def mirror_half(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mirror each image of a batch, with its masks, left to right with probability one half.

    torchvision's `RandomHorizontalFlip` would mirror all images of a batch or none.

    Args:
        batch: A batch as described above; further entries are kept.

    Returns:
        A new batch.
    """
    image = batch["image"]
    chosen = torch.rand(len(image), device=image.device) < 0.5
    pictures = {key: batch[key] for key in _PICTURES if key in batch}
    return batch | {
        key: torch.where(chosen.view(-1, *[1] * (picture.dim() - 1)), picture.flip(-1), picture)
        for key, picture in pictures.items()
    }
