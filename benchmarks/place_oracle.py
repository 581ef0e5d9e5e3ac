"""Proves for a model that its tokens lie where the reading of it says.

The oracle knows nothing of how places are found: it changes the pixels of a cell of the image and
looks which token moves.

At the first level the cell's token must move most, or, where stems overlap, nearly as much as a
neighbor that does. If nearly every change moves one token alone, patches do not overlap, and then
none may move another one. Tokens that are no patches must not move, or with every change, as tokens
do that see the whole image.

Deeper, tokens have mixed, and which one moves most may say nothing. Where tokens lie is a property
of a model's code and not of its weights. So where it is not clear, other weights are looked at:
small ones, with which residual connections alone carry a token on, and kernels that see no more
than what their stride passes over. What is then still spread out, or close by, is *unclear*.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from libragrad_lightning.backward import LibraGradError
from libragrad_lightning.models import FeatureView, TokenModel, View, explanation_state

_CELLS, _FEWER_CELLS = 16, 8
_DAMPINGS = (0.3, 0.1, 0.03)
_ROUNDING = 1e-12
_CLEAR = 0.6
"""Share of all movement that one token has, from where on it is plain that it is the one."""
_NEARLY = 0.4
"""How much of what a neighbor moves a cell's own token must move at least."""
_FEW = 3
"""Rows or columns of a grid of which nearly every cell is a neighbor of every other."""
Cell = tuple[int, int]
Grid = tuple[int, int]


@dataclass
class Finding:
    """What changes of pixels said about one level.

    Attributes:
        wrong: What is wrong, or nothing.
        unclear: Whether moves are so spread out that nothing can be said.
        alone: Whether every change moved one token only.
    """

    wrong: str = ""
    unclear: str = ""
    alone: bool = False

    @property
    def good(self) -> bool:
        """Whether every cell was found where it should be."""
        return not (self.wrong or self.unclear)


@dataclass
class Oracle:
    """Looks how far the tokens of a model move when pixels change."""

    module: nn.Module
    read: TokenModel
    images: Tensor
    views: tuple[View, ...] = field(init=False)

    def __post_init__(self) -> None:
        with explanation_state(self.module):
            self.views = self._record(self.images)[1]

    def findings(self) -> dict[int, Finding]:
        """Return what is found at every level."""
        with explanation_state(self.module):
            found = self._judged(range(len(self.views)))
        for factor in _DAMPINGS:
            left = [level for level, f in found.items() if f.unclear]
            if not left:
                break
            try:
                with _simplified(self.module, factor), explanation_state(self.module):
                    again = self._judged(left)
            except LibraGradError:  # nothing may be left of the image in what such weights make
                break
            found |= {level: f for level, f in again.items() if not f.unclear}
        if found[0].unclear:  # where no token has seen another one, there is no excuse
            found[0].wrong = found[0].unclear
        return found

    def _judged(self, levels: Iterable[int]) -> dict[int, Finding]:
        by_grid: dict[Grid, list[int]] = {}
        for level in levels:
            by_grid.setdefault(self.views[level].grid, []).append(level)
        found: dict[int, Finding] = {}
        before = self._tokens(self.images, [level for same in by_grid.values() for level in same])
        for grid, same in by_grid.items():
            cells = probed_cells(grid, _CELLS if 0 in same else _FEWER_CELLS)
            moves: dict[int, list[Tensor]] = {level: [] for level in same}
            for pair in zip(cells[::2], cells[1::2], strict=True):
                after = self._tokens(self._changed(grid, pair), same)
                for level in same:
                    moves[level].append((after[level] - before[level]).norm(dim=2))
            whole = not (self.images.shape[-2] % grid[0] or self.images.shape[-1] % grid[1])
            for level in same:
                view, moved = self.views[level], torch.cat(moves[level])
                parts = moved.split([part.length for part in view.passes], dim=1)
                passes = zip(parts, view.passes, strict=True)
                judged = [judge(*one, cells, level == 0, whole) for one in passes]
                found[level] = min(judged, key=lambda f: (not f.wrong, not f.unclear))
        return found

    def _changed(self, grid: Grid, cells: Sequence[Cell]) -> Tensor:
        """Change the area of one cell in each image, another one in each."""
        images = self.images.clone()
        generator = torch.Generator().manual_seed(5)
        for image, cell in zip(images, cells, strict=True):
            rows, columns = (pixels(*a) for a in zip(cell, grid, image.shape[1:], strict=True))
            area = image[:, rows, columns]
            area += torch.randn(area.shape, generator=generator, dtype=area.dtype)
        return images

    def _tokens(self, images: Tensor, levels: Sequence[int]) -> dict[int, Tensor]:
        features = self._record(images)[0]
        return {level: self.views[level].tokens(features[level]).detach() for level in levels}

    def _record(self, images: Tensor) -> tuple[tuple[Tensor, ...], tuple[View, ...]]:
        torch.manual_seed(0)  # for models that draw at random even in evaluation mode
        recording = self.read.record(images)
        return recording.features, recording.views


def judge(
    moves: Tensor, view: FeatureView, cells: Sequence[Cell], first: bool, whole: bool
) -> Finding:
    """Judge one level by how far its tokens moved, `[cells, T]`, when the cells were changed.

    Args:
        moves: How far.
        view: Where the tokens are said to be.
        cells: Which cell was changed in each row of `moves`.
        first: Whether it is the first level, where no token has seen another one.
        whole: Whether cells have whole pixels, so that none of them reaches into another patch.
    """
    if moves.shape[1] != view.length:
        return Finding(wrong=f"{moves.shape[1]} tokens for {view.length} places")
    if not moves.isfinite().all() or not (moves.sum(1) > 0).all():
        return Finding(unclear="nothing moves")
    others, patches = moves[:, : view.prefix], moves[:, view.prefix :]
    sees = others > 0
    if first and (sees.any(dim=0) & ~sees.all(dim=0)).any():
        return Finding(wrong="a prefix token moves with some cells and not with others")
    moved = (patches > _ROUNDING * moves.max(dim=1, keepdim=True).values).sum(dim=1)
    strays = [i for i, cell in enumerate(cells) if int(patches[i].argmax()) != _place(view, cell)]
    far = [i for i in strays if not _is_near(patches[i], view, cells[i])]
    if far:
        text = (
            f"{len(far)} of {len(cells)} cells elsewhere, {_example(far[0], patches, view, cells)}"
        )
        share = patches.max(dim=1).values / patches.sum(dim=1)
        clear = any(share[i] > _CLEAR and _distance(patches[i], view, cells[i]) > 1 for i in far)
        return Finding(wrong=text) if clear else Finding(unclear=text)
    # Where borders are cropped, cells reach into other patches.
    if min(view.grid) <= _FEW and len(strays) > (0 if whole else len(cells) // 3):
        text = _example(strays[0], patches, view, cells)
        return Finding(unclear=f"{len(strays)} of {len(cells)} cells close by, {text}")
    single = bool((moved == 1).all())
    if first and whole and (moved == 1).double().mean() > 0.5 and not single:
        return Finding(wrong=f"a change of one cell moves {int(moved.max())} tokens")
    return Finding(alone=single)


def _place(view: FeatureView, cell: Cell) -> int:
    return cell[0] * view.grid[1] + cell[1]


def _distance(patches: Tensor, view: FeatureView, cell: Cell) -> int:
    """Return how many cells away the patch is that moves most."""
    row, column = divmod(int(patches.argmax()), view.grid[1])
    return max(abs(row - cell[0]), abs(column - cell[1]))


def _is_near(patches: Tensor, view: FeatureView, cell: Cell) -> bool:
    """Whether the patch that moves most is a neighbor, and the cell's moves nearly as much.

    Convolutions without padding shift what is fine by some cells.
    """
    own, close = patches[_place(view, cell)], max(1, min(view.grid) // 8)
    return _distance(patches, view, cell) <= close and bool(own > _NEARLY * patches.max())


def _example(i: int, patches: Tensor, view: FeatureView, cells: Sequence[Cell]) -> str:
    seen = divmod(int(patches[i].argmax()), view.grid[1])
    share = float(patches[i, _place(view, cells[i])] / patches[i].max())
    return f"as {cells[i]} at {seen}: its own moves {share:.2g}"


def probed_cells(grid: Grid, most: int) -> list[Cell]:
    """Return an even number of cells: all of them, or corners, borders and some at random."""
    rows, columns = grid
    every = [(r, c) for r in range(rows) for c in range(columns)]
    if len(every) > most:
        corners = [(r, c) for r in (0, rows - 1) for c in (0, columns - 1)]
        borders = [(r, columns // 2) for r in (0, rows // 2, rows - 1)]
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(3)).tolist()
        every = list(dict.fromkeys([*corners, *borders, *(every[i] for i in order)]))[:most]
    return every if len(every) % 2 == 0 else [*every, every[0]]


def pixels(index: int, cells: int, length: int) -> slice:
    """Return the pixels of one of equal parts of an axis, at least one."""
    first = index * length // cells
    return slice(first, max(first + 1, (index + 1) * length // cells))


@contextmanager
def _simplified(module: nn.Module, factor: float) -> Iterator[None]:
    """Make the weights and biases of linear maps small for a while, and their kernels narrow."""
    maps = [m for m in module.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    own = {id(p): p for m in maps for p in m.parameters()}
    kept = [(p, p.detach().clone()) for p in own.values()]
    try:
        with torch.no_grad():
            for parameter, _ in kept:
                parameter.mul_(factor)
            for convolution in (m for m in maps if type(m.weight) is nn.Parameter):
                if isinstance(convolution, nn.Conv2d):
                    _narrow(convolution)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(value)


def _narrow(convolution: nn.Conv2d) -> None:
    """Leave of a kernel only what looks at the pixels that its stride passes over."""
    for axis in (0, 1):
        length, stride = convolution.kernel_size[axis], convolution.stride[axis]
        padding = convolution.padding[axis] if isinstance(convolution.padding, tuple) else 0
        # Without padding of its own it may be padded before, evenly.
        first = padding // convolution.dilation[axis] or max(0, (length - stride) // 2)
        seen = torch.zeros(length, dtype=convolution.weight.dtype)
        seen[first : first + stride] = (length / min(stride, length)) ** 0.5
        shape = (-1, 1) if axis == 0 else (1, -1)
        convolution.weight.mul_(seen.view(shape))
