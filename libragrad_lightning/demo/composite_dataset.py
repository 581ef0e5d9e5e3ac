"""Composites as tensors: normalized and indexable."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from libragrad_lightning.data.batches import normalize
from libragrad_lightning.demo.compositing import Composites

PIXEL_MEAN = (0.41, 0.37, 0.34)
"""Mean of the training composites' red, green and blue, as a share of the pixel range."""

PIXEL_STD = (0.20, 0.22, 0.24)
"""Standard deviation of the training composites' red, green and blue, as the same share."""


class CompositeDataset(Dataset[dict[str, Tensor]]):
    """Composites as normalized tensors.

    Args:
        composites: Images, labels and masks of N composites.
    """

    def __init__(self, composites: Composites) -> None:
        self._images = normalize(composites.images, PIXEL_MEAN, PIXEL_STD)
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
