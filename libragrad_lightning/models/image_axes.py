"""Finds out along which axis, and in which order, the values of an operation belong to images.

Most operations have the batch first, but attention of `torch.nn` works on `[T, B, D]` and on its
rows, recurrent layers on `[T, B, ...]`, and windows on `[B * windows, ...]`. Shapes alone cannot
tell rows in one order from rows in another. The gradients of the same image twice can, if the
scores of the second one count double: then theirs are twice those of the first. What they tell holds for
one image too, although torch may then take other operations, as an axis of length one is contiguous
in more ways: the sites of biases are the same, in the order of the forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from libragrad_lightning.backward import (
    PLAIN,
    BiasSite,
    GraphReading,
    bias_sites,
    grad,
    read_graph,
    watch_bias_sites,
)
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

    @property
    def is_first(self) -> bool:
        """Whether images come first, each in one piece."""
        return self.axis == 0 and self.repeats == 1

    def batch_first(self, values: Tensor, batch: int) -> Tensor:
        """Return values with the images first along the first axis, each in one piece.

        An axis on which images alternate, as in rows of `[T, B]`, becomes rows of `[B, T]`; an axis
        of images alone is moved to the front.
        """
        length = values.shape[self.axis]
        if self.is_first:
            return values
        pieces = values.unflatten(self.axis, (self.repeats, batch, length // self.repeats // batch))
        moved = pieces.movedim(self.axis + 1, 0)
        if self.axis == 0:
            return moved.flatten(0, 2)
        return moved.flatten(self.axis + 1, self.axis + 2).squeeze(self.axis + 1)


def image_axes(pair: Recorded, alone: Recorded | None = None) -> dict[int, ImageAxis | None]:
    """Find where images are at every site of biases, in recorded forward passes of a model.

    An axis is unknown where no image can be told from the other, as nothing there has an effect.

    Args:
        pair: A recorded forward pass of an image twice, to tell images apart.
        alone: A recorded forward pass of the image alone, if the axes are to be those in forward
            passes of one image; else they are those in passes of several.

    Returns:
        By the number of the site; None where it is unknown.
    """
    seen = _seen(*pair)
    axes = _axes(seen)
    if alone is None:
        return axes
    reading = read_graph([alone[0]], parts_of(alone[1]), PLAIN)
    return _axes_of_one(axes, seen, reading)


@dataclass(frozen=True)
class _Seen:
    """A site of biases in a forward pass of two, and the axes along which they may follow."""

    site: BiasSite
    shape: torch.Size
    fitting: tuple[ImageAxis, ...]


def _seen(logits: Tensor, z0: Features) -> dict[int, _Seen]:
    """Return the sites by their number, in the order of the forward pass."""
    found: dict[int, _Seen] = {}

    def look(site: BiasSite, gradient: Tensor) -> None:
        fitting = tuple(_fitting(site.operation, gradient))
        found[site.number] = _Seen(site, gradient.shape, fitting)

    def watch(reading: GraphReading) -> Iterable[RemovableHandle]:
        return watch_bias_sites(reading, look)

    generator = torch.Generator().manual_seed(0)
    of_one = torch.randn(logits.shape[1], generator=generator).to(logits)
    twice = torch.stack([of_one, 2 * of_one])
    inputs = parts_of(z0)
    grad(logits, inputs, twice, rules=PLAIN, retain_graph=True, unknown="ignore", watch=[watch])
    return dict(sorted(found.items(), key=lambda item: item[1].site.sequence))


def _axes_of_one(
    axes: Mapping[int, ImageAxis | None], of_two: Mapping[int, _Seen], reading: GraphReading
) -> dict[int, ImageAxis | None]:
    """Return the axes in a forward pass of one image, given those in one of two.

    Unknown for values that do not have the form of those of two images, which are rows in order.
    """
    sites = bias_sites(reading)
    if len(sites) != len(of_two):
        return {}
    found: dict[int, ImageAxis | None] = {}
    for site, (number, two) in zip(sites, of_two.items(), strict=True):
        axis = axes[number]
        if axis is not None:
            shape = reading.nodes[site.number].node._input_metadata[0].shape
            doubled = [k * 2 if i == axis.axis else k for i, k in enumerate(shape)]
            fits = doubled == list(two.shape)
            axis = replace(axis, operation=site.operation) if fits else None
        found[site.number] = axis
    return found


def _axes(seen: Mapping[int, _Seen]) -> dict[int, ImageAxis | None]:
    """Return the axis of every site, None where it is unknown.

    Where only a few values have a gradient, as those of the token that is read out, several axes
    may fit; then that of sites of the same form counts, where all tokens have one.
    """
    sure = {
        (site.shape, site.fitting[0].axis, site.fitting[0].repeats)
        for site in seen.values()
        if len(site.fitting) == 1
    }
    found: dict[int, ImageAxis | None] = {}
    for number, site in seen.items():
        alike = [a for a in site.fitting if (site.shape, a.axis, a.repeats) in sure]
        found[number] = next(iter([*alike, *site.fitting]), None)
    return found


def _fitting(operation: str, gradient: Tensor) -> Iterable[ImageAxis]:
    """Give the axes along which all of the second image is twice what is of the first."""
    if not gradient.any():
        return
    limit = max(1e-3, 8 * torch.finfo(gradient.dtype).eps) * gradient.abs().amax()
    for axis in range(gradient.dim()):
        length = gradient.shape[axis]
        for repeats in (r for r in range(1, length // 2 + 1) if length % (2 * r) == 0):
            first, second = gradient.unflatten(axis, (repeats, 2, -1)).unbind(axis + 1)
            if bool(((second - 2 * first).abs() <= limit).all()):
                yield ImageAxis(operation, axis, repeats)
