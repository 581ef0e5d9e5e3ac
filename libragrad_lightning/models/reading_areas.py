"""Measures which pixels the tokens of a grid read: those that their gradients reach.

The gradients of all tokens together, of each row times the root of its number, and of each column
likewise, have energies whose quotients say for every line of pixels which row or column reads it,
on average where several do. Where that passes from one to the next, a patch ends. So a few passes
of one image through the stem tell the areas of all patches, whatever their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from libragrad_lightning.models.feature_view import View
from libragrad_lightning.models.levels import Level, seen_until_the_last
from libragrad_lightning.models.noise import noise_like
from libragrad_lightning.models.places import other_image
from libragrad_lightning.models.refusals import unless_refused
from libragrad_lightning.placement import Placement, Span

_DRAWS = 4
"""Different images and weights of tokens: where stems overlap, products of neighbors cancel."""
_READ = 1e-8
"""Energy of a line of pixels that is read, of the line with most."""
_STEPS = 4
"""Of a pixel: noise tells no finer ones, and weights that differ by rounding give the same area."""
_SHARED = 1e-3
"""Of a line of pixels, what another row or column than its own reads at most."""


def measured_placement(
    forward: Callable[[Tensor], object], level: Level, view: View, image: Tensor
) -> Placement:
    """Return where the patches of the first level lie in an image.

    They are taken to divide it evenly along a side where that cannot be told: if there are no
    gradients of pixels, or patches do not follow each other at equal distances. So they are where
    stems overlap, if their number divides the side.

    Args:
        forward: Runs the model on images.
        level: The level.
        view: How to read its features.
        image: `[1, C, H, W]`.
    """
    energies = unless_refused(partial(_energies, forward, level, view, image))
    if energies is None:
        return Placement()
    rows, columns = view.grid
    whole, by_row, by_column = energies
    return Placement(
        _span(whole.sum(1), by_row.sum(1), rows), _span(whole.sum(0), by_column.sum(0), columns)
    )


def _energies(
    forward: Callable[[Tensor], object], level: Level, view: View, image: Tensor
) -> Tensor | None:
    """Return the energies `[3, H, W]` of all tokens, times their rows, and times their columns."""
    numbers = torch.arange(view.grid[0] * view.grid[1], device=image.device)
    weights = [torch.ones_like(numbers), numbers // view.grid[1], numbers % view.grid[1]]
    found = torch.zeros(len(weights), *image.shape[-2:], dtype=torch.float64)
    other = other_image(image.detach())
    for draw in range(_DRAWS):
        drawn = (other + noise_like(other, 2 + draw) * other.std()).requires_grad_()
        with torch.enable_grad():
            seen = seen_until_the_last(forward, level.points, drawn)
            parts = [
                part.tokens(seen[point])[:, part.prefix :]
                for part, point in zip(view.passes, level.points, strict=True)
            ]
        if not all(part.requires_grad for part in parts):
            return None
        found += torch.stack([_energy(drawn, parts, weight, draw) for weight in weights])
    return found


def _energy(images: Tensor, parts: Sequence[Tensor], weights: Tensor, draw: int) -> Tensor:
    """Return the energy `[H, W]` of the gradient of tokens times the roots of weights `[T]`."""
    of_tokens = [
        noise_like(part, draw + _DRAWS * i) * weights.sqrt().to(part)[:, None]
        for i, part in enumerate(parts)
    ]
    gradients = torch.autograd.grad(
        list(parts), images, of_tokens, retain_graph=True, allow_unused=True
    )[0]
    energy = torch.zeros_like(images) if gradients is None else gradients.detach()
    return energy.double().cpu().square().sum((0, 1))


def _span(energy: Tensor, numbered: Tensor, count: int) -> Span:
    """Return where patches lie along a side.

    Args:
        energy: Of every line of pixels `[L]`.
        numbered: Times the numbers of the patches that read it, `[L]`.
        count: How many patches there are.
    """
    length = len(energy)
    lines = (energy > _READ * energy.max()).nonzero()[:, 0]
    if not bool(energy.isfinite().all()) or len(lines) == 0:
        return Span()
    begin, end = int(lines[0]), int(lines[-1]) + 1
    numbers = (numbered / energy)[lines].cummax(0).values
    edges = _edges(lines + 0.5, numbers, count)
    fitted = None if edges is None else _fitted(edges, begin, end)
    if fitted is None:
        return Span()
    first, last = (round(_STEPS * edge) / _STEPS for edge in fitted)
    overlaps = bool(((numbers - numbers.round()).abs() > _SHARED).any())
    if overlaps and length % count == 0:
        # Weights and padding move the middle of what is read, and weights change while they learn.
        return Span(read_from=begin / length, read_to=end / length)
    return Span(first / length, last / length, begin / length, end / length)


def _edges(middles: Tensor, numbers: Tensor, count: int) -> Tensor | None:
    """Return where patches border on the next, `[count - 1]`; None if some are read nowhere."""
    borders = torch.arange(count - 1, dtype=torch.float64) + 0.5
    after = torch.searchsorted(numbers, borders)
    if bool(((after == 0) | (after == len(numbers))).any()):
        return None
    before = after - 1
    share = (borders - numbers[before]) / (numbers[after] - numbers[before])
    return middles[before] + share * (middles[after] - middles[before])


def _fitted(edges: Tensor, begin: int, end: int) -> tuple[float, float] | None:
    """Return where the first patch begins, and where the last one ends."""
    if len(edges) == 0:
        return float(begin), float(end)
    if len(edges) == 1:
        # One of two patches may reach over the border of the image.
        pitch = max(float(edges) - begin, end - float(edges))
        return float(edges) - pitch, float(edges) + pitch
    numbers = torch.arange(1, len(edges) + 1, dtype=torch.float64)
    centered = numbers - numbers.mean()
    pitch = float((centered * edges).sum() / centered.square().sum())
    first = float(edges.mean() - pitch * numbers.mean())
    regular = bool(((first + pitch * numbers - edges).abs() < pitch / 2).all())
    return (first, first + pitch * (len(edges) + 1)) if regular else None
