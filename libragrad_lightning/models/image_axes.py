"""Finds out along which axis, and in which order, the values of an operation belong to images.

Most operations have the batch first, but attention of `torch.nn` works on `[T, B, D]` and on its
rows, recurrent layers on `[T, B, ...]`, and windows on `[B * windows, ...]`. Shapes alone cannot
tell rows in one order from rows in another. The gradients of the same image twice can, if the
scores of the second one count double: then theirs are twice those of the first. Where the graph
depends on what images hold, as with routers, the gradients of some images of the batch tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from libragrad_lightning.backward import PLAIN, grad
from libragrad_lightning.backward.biases import BiasSite, watch_bias_sites
from libragrad_lightning.backward.graph import AnnotatedGraph
from libragrad_lightning.models.feature_view import Features, parts_of
from libragrad_lightning.models.noise import noise_like


@dataclass(frozen=True)
class ImageAxis:
    """Where the images are in the values of an operation.

    Attributes:
        operation: The name of the operation.
        axis: The axis along which images follow each other; -1 if images are mixed there, so that
            one cannot be told from another.
        repeats: How often all images are run through along it: 1 if each image is in one piece.
    """

    operation: str
    axis: int
    repeats: int

    @property
    def is_mixed(self) -> bool:
        """Whether values depend on several images, as where images of a batch see each other."""
        return self.axis < 0

    @property
    def is_first(self) -> bool:
        """Whether images come first, each in one piece."""
        return self.axis == 0 and self.repeats == 1

    def fits_one(self, shape: Sequence[int]) -> bool:
        """Return whether values of one image may follow this axis too."""
        return 0 <= self.axis < len(shape) and shape[self.axis] % self.repeats == 0

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


def axis_of_one(operation: str, shape: Sequence[int]) -> ImageAxis:
    """Return where the image is in values of an operation on one image alone.

    An axis of length one is that of images; else the values of the image are in one piece.
    """
    alone = [axis for axis, length in enumerate(shape) if length == 1]
    return ImageAxis(operation, alone[0] if alone and len(shape) > 2 else 0, 1)


def axes_of_pair(
    output: Tensor, source: Features, of_output: Tensor | None = None
) -> dict[int, ImageAxis | None]:
    """Find where images are at every site of biases, in a recorded forward pass of an image twice.

    Args:
        output: What comes out of a model, or of a part of it; scores `[2, C]` by default.
        source: What goes in.
        of_output: A gradient of the output, that of the second image twice that of the first.

    Returns:
        By the number of the site; None where nothing has an effect.
    """

    def fits(pieces: Tensor, limit: Tensor) -> bool:
        first, second = pieces.unbind(1)
        return bool(((second - 2 * first).abs() <= limit).all())

    weights = torch.tensor([1.0, 2.0])
    gradient = _weighed(output, weights) if of_output is None else of_output
    return _axes(_seen(output, source, gradient, len(weights), fits))


def axes_of_batch(scores: Tensor, source: Features) -> dict[int, ImageAxis | None]:
    """Find where images are at every site of biases, in a recorded forward pass of any images.

    Args:
        scores: `[B, C]`.
        source: What they come from.
    """
    batch = len(scores)
    chosen = torch.arange(batch) % 2 == 0

    def fits(pieces: Tensor, limit: Tensor) -> bool:
        shown = (pieces != 0).movedim(1, 0).flatten(1).any(dim=1)
        return torch.equal(shown.cpu(), chosen)

    return _axes(_seen(scores, source, _weighed(scores, chosen), batch, fits))


def _weighed(scores: Tensor, weights: Tensor) -> Tensor:
    """Return a gradient of scores `[B, C]`, the same of all images but for their weights."""
    return weights.to(scores)[:, None] * noise_like(scores[0].detach())


@dataclass(frozen=True)
class _Seen:
    """A site of biases, the axes along which images may follow each other, and what if none."""

    shape: torch.Size
    fitting: tuple[ImageAxis, ...]
    without: ImageAxis | None


_Fits: TypeAlias = Callable[[Tensor, Tensor], bool]
"""Whether values `[repeats, B, length, ...]` may be those of images, up to a limit of rounding."""


def _seen(
    output: Tensor, source: Features, of_output: Tensor, batch: int, fits: _Fits
) -> dict[int, _Seen]:
    """Return the sites by their number, and the axes that fit their gradients."""
    found: dict[int, _Seen] = {}

    def look(site: BiasSite, gradient: Tensor) -> None:
        fitting = tuple(_fitting(site.operation, gradient, batch, fits))
        tells = bool(gradient.any() and gradient.isfinite().all())
        mixed = ImageAxis(site.operation, -1, 1) if tells else None
        found[site.number] = _Seen(gradient.shape, fitting, mixed)

    def watch(graph: AnnotatedGraph) -> Iterable[RemovableHandle]:
        return watch_bias_sites(graph, look)

    inputs = parts_of(source)
    grad(output, inputs, of_output, rules=PLAIN, retain_graph=True, unknown="ignore", watch=[watch])
    return found


def _axes(seen: dict[int, _Seen]) -> dict[int, ImageAxis | None]:
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
        found[number] = next(iter([*alike, *site.fitting]), site.without)
    return found


def _fitting(operation: str, gradient: Tensor, batch: int, fits: _Fits) -> Iterable[ImageAxis]:
    """Give the axes along which images may follow each other."""
    if not gradient.any():
        return
    size = gradient.abs()
    limit = max(1e-3, 8 * torch.finfo(gradient.dtype).eps) * size.amax()
    largest = [int(i) for i in torch.unravel_index(size.argmax(), gradient.shape)]
    for axis in range(gradient.dim()):
        moved, length = gradient.movedim(axis, 0), gradient.shape[axis]
        few = _through(gradient, axis, largest)
        for repeats in range(1, length // batch + 1):
            if length % (batch * repeats):
                continue
            shape = (repeats, batch, -1)
            # Nearly all that do not fit show it where the largest value is.
            if fits(few.unflatten(0, shape), limit) and fits(moved.unflatten(0, shape), limit):
                yield ImageAxis(operation, axis, repeats)


def _through(values: Tensor, axis: int, place: Sequence[int]) -> Tensor:
    """Return the values along an axis that go through a place."""
    index: list[int | slice] = list(place)
    index[axis] = slice(None)
    return values[tuple(index)]
