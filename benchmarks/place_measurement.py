"""Proves for one model that its tokens lie where the reading of it says.

The oracle knows nothing of how places are found: it changes pixels of the image and looks which
token moves.

At the first level the token of a cell must move most when the middle of the cell's area changes. If
nearly every change moves one token alone, the patches do not overlap, and then none may move
another one. Tokens that are no patches must not move at all.

Deeper, tokens mix, and which one moves most may say nothing. What carries a token's place through a
network is its residual connection, so the weights of all maps are made small, and only what the
connections carry is left. Views are those of the model as it was before; where tokens lie is a
property of its code and not of its weights. Levels at which moves stay spread out are *unclear*.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from completeness import double_precision
from place_models import PlaceModel, UnbuildableError, place_models
from torch import Tensor, nn

from libragrad_lightning import explain
from libragrad_lightning.backward import LibraGradError
from libragrad_lightning.models import FeatureView, TokenModel, explanation_state, read_token_model

_CELLS = 16
_DAMPINGS = (0.3, 0.1, 0.03)
_ROUNDING = 1e-12
_CLEAR = 0.6
"""Share of all movement that one token has, from where on it is plain that it is the one."""
Cell = tuple[int, int]
Grid = tuple[int, int]


@dataclass(frozen=True)
class PlaceRow:
    """What is known of the places of one model's tokens.

    Attributes:
        name: The key of the model.
        library: The library that it is from.
        verdict: ``"in place"``, ``"MISPLACED"``, ``"refused"``, ``"foreign error"``, ``"not built"``
            or ``"time limit"``.
        reason: What was seen, or the message.
        levels: Number of levels.
        grid: Rows and columns of the first level.
        prefix: Number of tokens of the first level that are no patches.
        unclear: Levels at which moves are spread out, so that nothing is known.
        alone: Whether every change moved one token of the first level alone.
        residual: The largest Libra residual of a level, relative to the logit.
        batch: How much the map of an image differs with another image in its batch, relative to its
            largest value.
        unexplained: Why there is no explanation, although tokens were found.
        seconds: Duration of everything.
    """

    name: str
    library: str
    verdict: str = "in place"
    reason: str = ""
    levels: int | None = None
    grid: str = ""
    prefix: int | None = None
    unclear: str = ""
    alone: bool | None = None
    residual: float | None = None
    batch: float | None = None
    unexplained: str = ""
    seconds: float | None = None


def measure(key: str) -> PlaceRow:
    """Check the model of this key."""
    start = time.perf_counter()
    model = place_models()[key]
    row = PlaceRow(key, model.library)
    with double_precision():
        try:
            row = _checked(model, row)
        except UnbuildableError as error:
            row = replace(row, verdict="not built", reason=_line(error))
        except LibraGradError as error:
            row = replace(row, verdict="refused", reason=_line(error))
        except Exception as error:  # the verdict is about just these
            row = replace(row, verdict="foreign error", reason=_foreign(error))
    return replace(row, seconds=round(time.perf_counter() - start, 1))


def _checked(model: PlaceModel, row: PlaceRow) -> PlaceRow:
    module, images = model.built(), model.images(2)
    read = read_token_model(module, images, forward=model.forward(module))
    movement = _Movement(module, read, images)
    first = movement.views[0]
    row = replace(
        row,
        levels=len(movement.views),
        grid=f"{first.grid[0]}x{first.grid[1]}",
        prefix=first.prefix,
    )
    findings = movement.findings()
    entry = findings[0]
    row = replace(row, alone=entry.alone)
    wrong = [f"level {level}: {f.wrong}" for level, f in findings.items() if f.wrong]
    unclear = [str(level) for level, finding in findings.items() if finding.unclear]
    row = replace(row, reason="; ".join(wrong)[:300], unclear=" ".join(unclear))
    return _explained(model, module, images, replace(row, verdict="MISPLACED") if wrong else row)


def _explained(model: PlaceModel, module: nn.Module, images: Tensor, row: PlaceRow) -> PlaceRow:
    def explanation(batch: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        found = explain(module, batch, target=1, forward=model.forward(module), progress=False)
        return found.attribution, (found.residuals / found.target_logit).abs().max()

    try:
        maps, residual = explanation(images)
        alone, _ = explanation(images[:1])
    except LibraGradError as error:
        return replace(row, unexplained=_line(error))
    except Exception as error:
        return replace(row, verdict="foreign error", reason=_foreign(error))
    difference = (maps[:1] - alone).abs().max() / maps[:1].abs().max()
    return replace(row, residual=float(residual), batch=float(difference))


@dataclass
class Finding:
    """What changes of pixels said about one level.

    Attributes:
        wrong: What is wrong, or nothing.
        unclear: Whether moves are so spread out that nothing can be said.
        alone: Whether every change moved one token only.
    """

    wrong: str = ""
    unclear: bool = False
    alone: bool = False


@dataclass
class _Movement:
    """How far tokens move when pixels change."""

    module: nn.Module
    read: TokenModel
    images: Tensor
    views: tuple[FeatureView, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.views = self._record(self.images)[1]

    def findings(self) -> dict[int, Finding]:
        """Return what is found at every level."""
        found = self._judged(range(len(self.views)))
        for factor in _DAMPINGS:
            left = [level for level, f in found.items() if level and (f.wrong or f.unclear)]
            if not left:
                break
            try:
                with _damped(self.module, factor):
                    again = self._judged(left)
            except LibraGradError:  # nothing may be left of the image in what such weights make
                break
            # A false place cannot pass a dozen cells by chance, so that one success is enough.
            better = {level: f for level, f in again.items() if not (f.wrong or f.unclear)}
            clearer = {level: f for level, f in again.items() if found[level].unclear}
            found |= clearer | better
        return found

    def _judged(self, levels: Sequence[int]) -> dict[int, Finding]:
        by_grid: dict[Grid, list[int]] = {}
        for level in levels:
            by_grid.setdefault(self.views[level].grid, []).append(level)
        found: dict[int, Finding] = {}
        for grid, same in by_grid.items():
            cells = probed_cells(grid)
            moves: dict[int, list[Tensor]] = {level: [] for level in same}
            before = self._tokens(self.images, same)
            for pair in zip(cells[::2], cells[1::2], strict=True):
                after = self._tokens(self._changed(grid, pair), same)
                for level in same:
                    moves[level].append((after[level] - before[level]).norm(dim=2))
            for level in same:
                spread = torch.cat(moves[level])
                found[level] = judge(spread, self.views[level], cells, level == 0, self._even(grid))
        return found

    def _even(self, grid: Grid) -> bool:
        return not (self.images.shape[-2] % grid[0] or self.images.shape[-1] % grid[1])

    def _changed(self, grid: Grid, cells: Sequence[Cell]) -> Tensor:
        """Change the middle of one cell's area in each image, another one in each."""
        images = self.images.clone()
        generator = torch.Generator().manual_seed(5)
        for image, cell in zip(images, cells, strict=True):
            rows, columns = (middle(*a) for a in zip(cell, grid, image.shape[1:], strict=True))
            area = image[:, rows, columns]
            area += torch.randn(area.shape, generator=generator, dtype=area.dtype)
        return images

    def _tokens(self, images: Tensor, levels: Sequence[int]) -> dict[int, Tensor]:
        features = self._record(images)[0]
        return {level: self.views[level].tokens(features[level]).detach() for level in levels}

    def _record(self, images: Tensor) -> tuple[tuple[Tensor, ...], tuple[FeatureView, ...]]:
        with explanation_state(self.module):
            torch.manual_seed(0)  # for models that draw at random even in evaluation mode
            recording = self.read.record(images)
        return recording.features, recording.views


def judge(
    moves: Tensor, view: FeatureView, cells: Sequence[Cell], first: bool, even: bool
) -> Finding:
    """Judge one level by how far its tokens moved, `[cells, T]`, when the cells were changed.

    Args:
        moves: How far.
        view: Where the tokens are said to be.
        cells: Which cell was changed in each row of `moves`.
        first: Whether it is the first level, where no token has seen another one.
        even: Whether the cells have whole pixels, so that none of them reaches into another patch.
    """
    own = torch.tensor([view.prefix + row * view.grid[1] + column for row, column in cells])
    if moves.shape[1] != view.length:
        return Finding(wrong=f"{moves.shape[1]} tokens for {view.length} places")
    if first and (moves[:, : view.prefix] > 0).any():
        return Finding(wrong="a prefix token moves")
    most = moves.argmax(dim=1)
    small = _ROUNDING * moves.max(dim=1, keepdim=True).values
    moved = (moves > small).sum(dim=1)
    single = bool((moved == 1).all())
    strays = [i for i in range(len(cells)) if most[i] != own[i]]
    if strays:
        share = moves.max(dim=1).values / moves.sum(dim=1).clamp_min(1e-300)
        clear = [i for i in strays if share[i] > _CLEAR]
        text = _stray_text(strays[0], moves, view, cells)
        if first or clear:
            return Finding(wrong=f"{len(strays)} of {len(cells)} cells elsewhere, {text}")
        return Finding(unclear=True)
    if first and even and (moved == 1).float().mean() > 0.5 and not single:
        return Finding(wrong=f"a change of one cell moves {int(moved.max())} tokens")
    return Finding(alone=single)


def _stray_text(i: int, moves: Tensor, view: FeatureView, cells: Sequence[Cell]) -> str:
    token = int(moves[i].argmax())
    own = view.prefix + cells[i][0] * view.grid[1] + cells[i][1]
    seen = f"token {token - view.prefix}" if token >= view.prefix else "a prefix token"
    ratio = float(moves[i, own] / moves[i].max())
    return f"as {cells[i]}: {seen} instead of {own - view.prefix}, which moves {ratio:.2g} as much"


def probed_cells(grid: Grid) -> list[Cell]:
    """Return an even number of cells: all of them, or corners, borders and some at random."""
    rows, columns = grid
    every = [(r, c) for r in range(rows) for c in range(columns)]
    if len(every) > _CELLS:
        ends = ((0, rows // 2, rows - 1), (0, columns // 2, columns - 1))
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(3)).tolist()
        marked = [(r, c) for r in ends[0] for c in ends[1]]
        every = list(dict.fromkeys([*marked, *(every[i] for i in order)]))[:_CELLS]
    return every if len(every) % 2 == 0 else [*every, every[0]]


def middle(index: int, cells: int, pixels: int) -> slice:
    """Return the pixels in the middle half of one of equal parts of an axis, at least one."""
    length = pixels / cells
    first = int((index + 0.25) * length)
    return slice(first, max(first + 1, int((index + 0.75) * length)))


@contextmanager
def _damped(module: nn.Module, factor: float) -> Iterator[None]:
    """Make the weights and biases of all linear maps small for a while."""
    maps = (nn.Linear, nn.modules.conv._ConvNd)
    weights = {id(p): p for m in module.modules() if isinstance(m, maps) for p in m.parameters()}
    kept = [(p, p.detach().clone()) for p in weights.values()]
    try:
        with torch.no_grad():
            for parameter, _ in kept:
                parameter.mul_(factor)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(value)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _foreign(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {_line(error)[:150]} (in {frame.name})"
