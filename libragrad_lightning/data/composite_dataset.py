"""Composites as tensors: normalised, indexable, mirrored in batches."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from libragrad_lightning.data.compositing import Composites

PIXEL_MEAN = (0.41, 0.37, 0.34)
"""Mean of the training composites' red, green and blue, as a share of the pixel range."""

PIXEL_STD = (0.20, 0.22, 0.24)
"""Standard deviation of the training composites' red, green and blue, as the same share."""


class CompositeDataset(Dataset[dict[str, Tensor]]):
    """Composites as normalised tensors.

    Args:
        composites: Images, labels and masks of N composites.
    """

    def __init__(self, composites: Composites) -> None:
        mean = torch.tensor(PIXEL_MEAN).view(3, 1, 1)
        std = torch.tensor(PIXEL_STD).view(3, 1, 1)
        pixels = torch.from_numpy(composites.images).permute(0, 3, 1, 2)
        self._images = ((pixels / 255 - mean) / std).contiguous()
        self._labels = torch.from_numpy(composites.labels)
        self._masks = torch.from_numpy(composites.masks)

    def __len__(self) -> int:
        """Return the number of composites."""
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one composite.

        Args:
            index: Position, 0 to N - 1.

        Returns:
            `image` `[3, 32, 32]` float32, `label` `[]` int64 and `mask` `[32, 32]` bool.
        """
        return {
            "image": self._images[index],
            "label": self._labels[index],
            "mask": self._masks[index],
        }


def mirror_half(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mirror each image of a batch, with its mask, left to right with probability one half.

    Args:
        batch: `image` `[B, C, H, W]`, `mask` `[B, H, W]` and anything else, which is kept.

    Returns:
        A new batch.
    """
    image, mask = batch["image"], batch["mask"]
    chosen = torch.rand(len(image), device=image.device) < 0.5
    return batch | {
        "image": torch.where(chosen[:, None, None, None], image.flip(-1), image),
        "mask": torch.where(chosen[:, None, None], mask.flip(-1), mask),
    }
