"""Finds out along which axis, and in which order, the values of an operation belong to images.

Most operations have the batch first, but attention of `torch.nn` works on `[T, B, D]` and on its
rows, recurrent layers on `[T, B, ...]`, and windows on `[B * windows, ...]`. Shapes alone cannot
tell rows in one order from rows in another; the gradients of one image of two can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from libragrad_lightning.backward import PLAIN, BiasSite, grad


@dataclass(frozen=True)
class ImageAxis:
    """Where the images are in the values of an operation.

    Attributes:
        operation: The name of the operation.
        axis: The axis along which images follow each other.
        repeats: How often all images are run through along it: 1 if each image is in one piece.
    """

    operation: str
    axis: int
    repeats: int

    def batch_first(self, values: Tensor, batch: int) -> Tensor:
        """Return values with the images first along the first axis, each in one piece.

        An axis on which images alternate, as in rows of `[T, B]`, becomes rows of `[B, T]`; an axis
        of images alone is moved to the front.
        """
        length = values.shape[self.axis]
        if self.axis == 0 and self.repeats == 1:
            return values
        pieces = values.unflatten(self.axis, (self.repeats, batch, length // self.repeats // batch))
        moved = pieces.movedim(self.axis + 1, 0)
        if self.axis == 0:
            return moved.flatten(0, 2)
        return moved.flatten(self.axis + 1, self.axis + 2).squeeze(self.axis + 1)


def image_axes(logits: Tensor, z0: Tensor) -> Mapping[int, ImageAxis]:
    """Find the axes of images for the biases of a recorded forward pass of two images.

    Args:
        logits: `[2, C]`.
        z0: The explained tensor.

    Returns:
        By the number of the site; sites in which no image can be told from the other are missing.
    """
    first, second = (_touched(logits, z0, image) for image in range(2))
    axes = {
        n: _axis(operation, of_first, second[n][1]) for n, (operation, of_first) in first.items()
    }
    return {number: axis for number, axis in axes.items() if axis is not None}


def _touched(logits: Tensor, z0: Tensor, image: int) -> dict[int, tuple[str, Tensor]]:
    """Return for every site its operation, and which of its values have a gradient of an image."""
    found: dict[int, tuple[str, Tensor]] = {}

    def look(site: BiasSite, contribution: Tensor) -> None:
        found[site.number] = (site.operation, contribution != 0)

    generator = torch.Generator().manual_seed(0)
    of_image = torch.zeros_like(logits)
    of_image[image] = torch.randn(logits.shape[1], generator=generator).to(logits)
    grad(logits, z0, of_image, rules=PLAIN, retain_graph=True, unknown="ignore", on_bias=look)
    return found


def _axis(operation: str, of_first: Tensor, of_second: Tensor) -> ImageAxis | None:
    """Find the axis along which what belongs to one image is apart from what belongs to the other.

    Some values have no gradient of any image, such as all tokens but one in a last block; no value
    has those of both.
    """
    for axis in range(of_first.dim()):
        others = [i for i in range(of_first.dim()) if i != axis]
        first, second = (t.any(dim=others) if others else t for t in (of_first, of_second))
        length = len(first)
        for repeats in (r for r in range(1, length // 2 + 1) if length % (2 * r) == 0):
            pieces = [touched.unflatten(0, (repeats, 2, -1)) for touched in (first, second)]
            if not pieces[0][:, 1].any() and not pieces[1][:, 0].any():
                return ImageAxis(operation, axis, repeats)
    return None
