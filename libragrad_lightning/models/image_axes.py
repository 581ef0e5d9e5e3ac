"""Finds out along which axis, and in which order, the values of an operation belong to images.

Most operations have the batch first, but attention of `torch.nn` works on `[T, B, D]` and on its
rows, recurrent layers on `[T, B, ...]`, and windows on `[B * windows, ...]`. Shapes alone cannot
tell rows in one order from rows in another; the gradients of one image of two can. What they tell
holds for one image too, although torch may then take other operations, as an axis of length one is
contiguous in more ways: the sites of biases are the same, in the order of the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from libragrad_lightning.backward import PLAIN, BiasSite, grad
from libragrad_lightning.models.feature_view import Features, parts_of

Recorded: TypeAlias = tuple[Tensor, Features]
"""Logits `[B, C]` with a graph, and the explained tensor, from which they come."""


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


def image_axes(
    pair: Callable[[], Recorded], alone: Recorded | None = None
) -> Mapping[int, ImageAxis]:
    """Find where images are at every site of biases, in recorded forward passes of a model.

    An axis is unknown where no image can be told from the other, and where biases are zero or
    without effect, so that no image shows.

    Args:
        pair: Runs the model on an image twice, to tell images apart.
        alone: A recorded forward pass of the image alone, which can be used again, if the axes are
            to be those in forward passes of one image; else they are those in passes of several.

    Returns:
        By the number of the site, without those that are unknown.
    """
    # Hides what is saved here from a caller that weighs what its images need.
    with saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        of_one = {} if alone is None else _touched(*alone, 0)
        if alone and not any(_may_be_misplaced(site.values) for site in of_one.values()):
            return {}
        two = pair()
        first, second = _touched(*two, 0), _touched(*two, 1)
    axes = _axes(first, second)
    if alone:
        axes = _axes_of_one(axes, first, of_one)
    return {number: axis for number, axis in axes.items() if axis is not None}


@dataclass(frozen=True)
class _Touched:
    """A site of biases, and which of its values have a gradient of an image."""

    operation: str
    sequence: int
    values: Tensor


def _touched(logits: Tensor, z0: Features, image: int) -> dict[int, _Touched]:
    """Return the sites by their number, in the order of the forward pass."""
    found: dict[int, _Touched] = {}

    def look(site: BiasSite, contribution: Tensor) -> None:
        values = contribution != 0
        if site.number in found:
            values = values | found[site.number].values
        found[site.number] = _Touched(site.operation, site.sequence, values)

    generator = torch.Generator().manual_seed(0)
    of_image = torch.zeros_like(logits)
    of_image[image] = torch.randn(logits.shape[1], generator=generator).to(logits)
    rules, inputs = PLAIN, parts_of(z0)
    grad(logits, inputs, of_image, rules=rules, retain_graph=True, unknown="ignore", on_bias=look)
    return dict(sorted(found.items(), key=lambda item: item[1].sequence))


def _may_be_misplaced(values: Tensor) -> bool:
    """Whether values of one image are neither image first nor rows, which are both in order."""
    return values.dim() > 2 and values.shape[0] > 1


def _axes_of_one(
    axes: Mapping[int, ImageAxis | None],
    of_two: Mapping[int, _Touched],
    of_one: Mapping[int, _Touched],
) -> dict[int, ImageAxis | None]:
    """Return the axes in a forward pass of one image, given those in one of two.

    Unknown for values that do not have the form of those of two images, which are rows in order.
    """
    if len(of_one) != len(of_two):
        return {}
    found: dict[int, ImageAxis | None] = {}
    for (number, one), (n, two) in zip(of_one.items(), of_two.items(), strict=True):
        axis = axes[n]
        if axis is not None:
            doubled = [k * 2 if i == axis.axis else k for i, k in enumerate(one.values.shape)]
            fits = doubled == list(two.values.shape)
            found[number] = replace(axis, operation=one.operation) if fits else None
    return found


def _axes(
    first: Mapping[int, _Touched], second: Mapping[int, _Touched]
) -> dict[int, ImageAxis | None]:
    """Return the axis of every site, None where it is unknown.

    Where only a few values have a gradient, as those of the token that is read out, several axes
    may fit; then that of sites of the same form counts, where all tokens have one.
    """
    fitting = {number: _fitting(touched, second[number]) for number, touched in first.items()}
    sure = {
        (tuple(first[number].values.shape), axes[0].axis, axes[0].repeats)
        for number, axes in fitting.items()
        if len(axes) == 1
    }
    found: dict[int, ImageAxis | None] = {}
    for number, axes in fitting.items():
        shape = tuple(first[number].values.shape)
        alike = [a for a in axes if (shape, a.axis, a.repeats) in sure]
        found[number] = next(iter([*alike, *axes]), None)
    return found


def _fitting(of_first: _Touched, of_second: _Touched) -> list[ImageAxis]:
    """Return the axes along which what belongs to one image is apart from what belongs to another.

    Some values have no gradient of any image, such as all tokens but one in a last block; no value
    has those of both.
    """
    if not (of_first.values.any() and of_second.values.any()):
        return []
    found = []
    for axis in range(of_first.values.dim()):
        first, second = (_along(axis, touched.values) for touched in (of_first, of_second))
        length = len(first)
        for repeats in (r for r in range(1, length // 2 + 1) if length % (2 * r) == 0):
            pieces = [touched.unflatten(0, (repeats, 2, -1)) for touched in (first, second)]
            if not pieces[0][:, 1].any() and not pieces[1][:, 0].any():
                found.append(ImageAxis(of_first.operation, axis, repeats))
    return found


def _along(axis: int, touched: Tensor) -> Tensor:
    others = [i for i in range(touched.dim()) if i != axis]
    return touched.any(dim=others) if others else touched
