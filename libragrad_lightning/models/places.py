"""Measures where in the image tokens lie: where the pixels are that move them.

Noise on all pixels moves a token by some amount. The same noise, with an energy that grows from the
top of the image to its bottom, moves it by a share of that, which is how far down the token lies;
likewise from left to right. Tokens that do not move lie nowhere: class tokens, registers, prompts.
So neither the order of tokens nor the number of those that are no patches is ever guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from libragrad_lightning.models.noise import noise_like

IMAGES = 4
"""How many images `moved_images` returns."""

_STRENGTH = 0.25
"""Standard deviation of the noise, of that of the image: enough to be seen in half precision."""
_GENTLE = 3
"""The last draw with this strength; if an image is too faint for it, later ones are stronger."""
_STILL = 1e-3
"""Tokens that move less than this, of the one that moves most, lie nowhere."""
_GAP = 0.2
"""How far apart two rows must be, of the distance between their middles."""
_REGULAR = 0.4
"""How far apart the nearest two rows must be, of the distance between those farthest apart."""
_SPAN = 0.65
"""How far apart tokens must be, of the distance between the outer cells of a grid; else they must
stand row by row,"""
_FEW = 4
"""and be more than these."""
_FEW_DEEP = 16
"""Deep tokens, and cells of a feature map, in an unusual order must be more than these."""
_FIT = 0.9
"""How well tokens must follow the places that a usual order gives them, as a correlation."""
_MOST_ELSEWHERE = 32
"""How many tokens that move with the whole image are looked for among patches,"""
_MIDDLE = 0.12
"""if they lie as near as this to the middle of the image, in both directions,"""
_MOST_AMONG = 1024
"""if there are not more of them than these."""


@dataclass(frozen=True)
class Places:
    """Where the tokens of a sequence lie.

    Attributes:
        order: All tokens by their numbers, int64 `[T]`: those that lie nowhere, then the patches
            row by row.
        prefix: How many of them lie nowhere.
        grid: Rows and columns of the patches.
    """

    order: Tensor
    prefix: int
    grid: tuple[int, int]

    @property
    def is_usual(self) -> bool:
        """Whether the tokens stand in this order by themselves."""
        return is_in_order(self.order)


@dataclass(frozen=True)
class Movement:
    """How tokens move with the pixels.

    Attributes:
        size: How far every token moves, `[T]`.
        down: How far down in the image lies what moves it, from 0 to 1, `[T]`.
        right: How far to the right, `[T]`.
    """

    size: Tensor
    down: Tensor
    right: Tensor

    def of(self, tokens: Tensor) -> Movement:
        """Return the movement of some tokens by their numbers."""
        return Movement(self.size[tokens], self.down[tokens], self.right[tokens])


def moved_images(image: Tensor, seed: int = 0) -> Tensor:
    """Return four images: one as it is, under noise, and under noise that grows down and right.

    Args:
        image: `[1, C, H, W]`.
        seed: Of the noise, which grows if several draws were not enough.
    """
    height, width = image.shape[-2:]
    noise = noise_like(image[0], seed)
    image = image.nan_to_num(0.0, 0.0, 0.0)
    scale = torch.maximum(image.std(), 0.1 * image.abs().amax())
    noise = noise * _STRENGTH * 4 ** max(0, seed - _GENTLE) * torch.where(scale > 0, scale, 1.0)
    down = ((torch.arange(height).to(image) + 0.5) / height).sqrt()
    right = ((torch.arange(width).to(image) + 0.5) / width).sqrt()
    plane = torch.ones_like(image[0, 0])
    amplitudes = torch.stack([0 * plane, plane, plane * down[:, None], plane * right])
    return image + amplitudes[:, None] * noise


def other_image(image: Tensor) -> Tensor:
    """Return noise with the mean and the deviation of an image, `[1, C, H, W]`."""
    image = image.nan_to_num(0.0)
    return image.mean() + noise_like(image, 1) * torch.where(image.std() > 0, image.std(), 1.0)


def movement(sequences: Sequence[Tensor]) -> Movement:
    """Return how tokens move, from the tokens `[4, T, D]` of `moved_images` with some seeds."""
    moved = [sequence.detach().double() for sequence in sequences]
    squares = torch.stack([(m[1:] - m[:1]).square().sum(2) for m in moved])
    size, down, right = squares.sum(0).cpu()
    whole = size.clamp_min(torch.finfo(torch.float64).tiny)
    return Movement(size.sqrt(), down / whole, right / whole)


def places(
    found: Movement,
    image_size: tuple[int, int],
    likely: tuple[int, int] | None = None,
    deep: bool = False,
) -> Places | None:
    """Return where tokens lie, or None if they do not lie in a grid.

    Args:
        found: How they move.
        image_size: Height and width of the image; of several grids that fit, the one whose cells
            are most like squares counts.
        likely: The grid of a feature map, which is tried first. Cells of a padded border lie
            nowhere; else all of them have a place.
        deep: Whether tokens have mixed, so that few of them may seem to be in any order.
    """
    if not bool(found.size.isfinite().all()):
        # Everything is NaN then, wherever it lies.
        return _places_by_number(len(found.size), image_size)
    patches = (found.size > _STILL * found.size.max()).nonzero()[:, 0]
    for some in [patches] if likely else _without_those_everywhere(found, patches):
        grids = _grids(len(some), image_size)
        for grid in sorted(grids, key=lambda grid: grid != likely):
            cells = _cells(found.of(some), grid, image_size)
            if cells is None:
                continue
            in_order = is_in_order(cells)
            usual = in_order and (grid == likely or _is_usual(grid, image_size))
            few = (deep or likely is not None) and len(some) <= _FEW_DEEP
            told = in_order or not few
            if usual or (told and _spans_the_image(found.of(some), grid)):
                return _places(len(found.size), some[cells.argsort()], grid)
    return None if likely else _usual_places(found, patches, image_size)


def is_in_order(numbers: Tensor) -> bool:
    """Return whether numbers count up from 0."""
    return torch.equal(numbers, torch.arange(len(numbers)))


def has_aspect(grid: tuple[int, int], size: tuple[int, int]) -> bool:
    """Return whether a grid has the aspect ratio of the image, up to one row or column."""
    return abs(grid[0] * size[1] - grid[1] * size[0]) <= max(size)


def _follows_rows(found: Movement, grid: tuple[int, int]) -> float:
    """Return how well tokens lie row by row in a grid, as the smaller of two correlations."""
    rows, columns = _rows_and_columns(grid)
    return min(_correlation(found.down, rows), _correlation(found.right, columns))


def outer_middles(found: Movement, at: Places) -> tuple[float, ...]:
    """Return where the outer rows and columns seem to lie: top, bottom, left, right, 0 to 1."""
    cells = found.of(at.order[at.prefix :])
    down, right = cells.down.view(at.grid).mean(1), cells.right.view(at.grid).mean(0)
    return float(down[0]), float(down[-1]), float(right[0]), float(right[-1])


def map_places(found: Movement, cells: tuple[int, int]) -> tuple[float, Places]:
    """Return how well the cells of a feature map follow the image, row by row, and their places.

    Cells of a padded border, which do not move, lie nowhere.
    """
    moves = (found.size > _STILL * found.size.max()).view(cells)
    rows, columns = (moves.any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
    numbers = torch.arange(cells[0] * cells[1]).view(cells)
    if len(rows):
        numbers = numbers[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    grid, inside = (numbers.shape[0], numbers.shape[1]), numbers.flatten()
    return _follows_rows(found.of(inside), grid), _places(len(found.size), inside, grid)


def _places(length: int, patches: Tensor, grid: tuple[int, int]) -> Places:
    nowhere = torch.ones(length, dtype=torch.bool)
    nowhere[patches] = False
    return Places(torch.cat([nowhere.nonzero()[:, 0], patches]), int(nowhere.sum()), grid)


def _cells(found: Movement, grid: tuple[int, int], size: tuple[int, int]) -> Tensor | None:
    """Return the number of the cell of every patch, or None if they do not fill the grid."""
    row, column = _bands(found.down, grid[0]), _bands(found.right, grid[1])
    if row is None or column is None:
        return None
    if 1 in grid and not _is_line(found, grid, size):
        return None
    cells = row * grid[1] + column
    return cells if len(cells.unique()) == len(cells) else None


def _spans_the_image(found: Movement, grid: tuple[int, int]) -> bool:
    """Whether tokens are as far apart as cells of the image are, about.

    Those that see much of the image seem to lie near to its middle.
    """
    axes = zip((found.down, found.right), grid, strict=True)
    return all(float(x.max() - x.min()) >= _SPAN * (count - 1) / count for x, count in axes)


def _is_usual(grid: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a grid has square cells, of more than a few."""
    return has_aspect(grid, size) and grid[0] * grid[1] > _FEW


def _bands(centers: Tensor, count: int) -> Tensor | None:
    """Divide tokens into bands of equal number, or return None unless they are well apart."""
    order = centers.argsort()
    sorted_bands = centers[order].view(count, -1)
    if count > 1:
        pitch = sorted_bands.mean(1).diff()
        gaps = sorted_bands[1:].amin(1) - sorted_bands[:-1].amax(1)
        if bool((gaps < _GAP * pitch).any()) or bool(pitch.min() < _REGULAR * pitch.max()):
            return None
    band = torch.empty_like(order)
    band[order] = torch.arange(count).repeat_interleave(len(order) // count)
    return band


def _is_line(found: Movement, grid: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether tokens in one row, or column, are nearer to it than to each other."""
    along, across = (found.right, found.down) if grid[0] == 1 else (found.down, found.right)
    scale = size[1] / size[0] if grid[0] == 1 else size[0] / size[1]
    pitch = (along.max() - along.min()) * scale / max(1, len(along) - 1)
    return bool(across.max() - across.min() < pitch)


def _without_those_everywhere(found: Movement, patches: Tensor) -> Iterator[Tensor]:
    """Give the patches, then those without the tokens much nearer to the middle of the image.

    Tokens that are averages of patches, or attend to all, move with the whole image.
    """
    yield patches
    if len(patches) <= _MOST_AMONG:
        off = torch.maximum((found.down - 0.5).abs(), (found.right - 0.5).abs())[patches]
        off, nearest = off.sort()
        for count in range(1, min(_MOST_ELSEWHERE, int((off < _MIDDLE).sum()) + 1, len(off) - 1)):
            left = len(off) - count
            if off[count] > 2 * off[count - 1] and left >= max(_FEW, count):
                yield patches[nearest[count:].sort().values]


def _usual_places(found: Movement, patches: Tensor, image_size: tuple[int, int]) -> Places | None:
    """Return the places of patches row by row, if those that are less sharp follow them."""
    some = found.of(patches)
    grids = [grid for grid in _grids(len(patches), image_size) if min(grid) > 1]
    fits = [(_follows_rows(some, grid), grid) for grid in grids]
    best = max(fits, default=(0.0, (0, 0)))
    return _places(len(found.size), patches, best[1]) if best[0] > _FIT else None


def _places_by_number(length: int, image_size: tuple[int, int]) -> Places | None:
    """Return places in a grid of the image's aspect ratio, those of other tokens before it."""
    for prefix in range(min(length - 1, _MOST_ELSEWHERE)):
        grid = next(iter(_grids(length - prefix, image_size)), None)
        if grid and has_aspect(grid, image_size):
            return Places(torch.arange(length), prefix, grid)
    return None


def _rows_and_columns(grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    numbers = torch.arange(grid[0] * grid[1])
    return numbers // grid[1], numbers % grid[1]


def _correlation(values: Tensor, numbers: Tensor) -> float:
    if int(numbers.max()) == 0:
        return 1.0  # A single row, or column, has no order.
    return float(torch.corrcoef(torch.stack([values, numbers.to(values)]))[0, 1].nan_to_num())


def _grids(count: int, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the grids of a number of cells, those whose cells are nearly squares first."""
    if count < 2:
        return []
    aspect = torch.tensor(image_size[0] / image_size[1]).log()
    grids = [(n, count // n) for n in range(1, count + 1) if count % n == 0]
    return sorted(grids, key=lambda g: float((torch.tensor(g[0] / g[1]).log() - aspect).abs()))
