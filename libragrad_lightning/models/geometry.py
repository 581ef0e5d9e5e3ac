"""Where the tokens of all levels lie, measured once for every size of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from libragrad_lightning.models.continuity import carried
from libragrad_lightning.models.feature_view import FeatureView, View, joined_view
from libragrad_lightning.models.levels import Level, Point, seen_at
from libragrad_lightning.models.logits import logits_of
from libragrad_lightning.models.measuring import measured_entry, measured_levels, view_of
from libragrad_lightning.models.places import Movement, has_aspect, is_in_order, places
from libragrad_lightning.models.refusals import unless_refused

_FEW_CELLS = 4
"""Feature maps of so few cells may be too coarse to be measured."""


@dataclass(frozen=True)
class Located:
    """Where the tokens of a level lie.

    Attributes:
        view: How to read its features; None if they lie in no grid of the image.
        by: What tells: ``"pixels"`` that move the tokens, the ``"graph"`` that leads every token
            from the level before to here, or their ``"number"`` alone, that of the level before.
    """

    view: View | None
    by: str = "pixels"


def located_levels(
    forward: Callable[[Tensor], object],
    levels: Sequence[Level],
    recorded: Sequence[Sequence[Tensor]],
    image: Tensor,
    readout: Sequence[int] = (),
) -> list[Located]:
    """Return where the tokens of every level lie.

    Runs four images without a graph, no further than to the last level whose places do not follow
    from those of the level before.

    Args:
        forward: Runs the model on images.
        levels: The levels.
        recorded: The features of every level, one tensor for each pass, in a recorded graph of the
            same image twice.
        image: `[1, C, H, W]`.
        readout: The tokens of the last level on which the scores depend, the class token among
            them.
    """
    axes = [level.axes[0] for level in levels]
    size = (image.shape[-2], image.shape[-1])
    first = measured_entry(forward, levels[0], image, readout)
    nothing: list[Tensor | None] = [None] * (len(levels) - 1)
    # Some graphs, as those of reentrant checkpoints, give no gradients of inner tensors.
    chains = [
        unless_refused(partial(carried, chain, axes)) or nothing
        for chain in zip(*recorded, strict=True)
    ]
    leads = [_all_or_none(steps) for steps in zip(*chains, strict=True)]
    unknown = [i for i, step in enumerate(leads, 1) if not _is_trusted(step, levels[i - 1 : i + 1])]
    deep = measured_levels(forward, [levels[i] for i in unknown], image, readout, deep=True)
    measured = dict(zip(unknown, deep, strict=True))
    # Where nothing is finite, nothing moves: places are those of usual models then.
    finite = all(bool(part.isfinite().all()) for part in recorded[0])
    found = [Located(first, "pixels" if finite else "number")]
    for i in range(1, len(levels)):
        before = found[-1].view
        view, by = measured.get(i), "pixels"
        step = None if i in unknown else leads[i - 1]
        if before is not None and step is not None:
            view, by = _led(before, step, levels[i], recorded[i], size), "graph"
        if view is None and before is not None:
            view, by = _by_number(before, recorded[i], size), "number"
        found.append(Located(view, by))
    return found


def recorded_levels(
    forward: Callable[[Tensor], object], levels: Sequence[Level], image: Tensor
) -> list[list[Tensor]]:
    """Return the features of every level, one tensor for each pass, of the same image twice.

    Args:
        forward: Runs the model on images.
        levels: The levels.
        image: `[1, C, H, W]`.
    """
    seen: dict[Point, Tensor] = {}
    with torch.enable_grad(), ExitStack() as stack:
        for point in (point for level in levels for point in level.points):
            stack.enter_context(seen_at(point, partial(seen.__setitem__, point)))
        logits_of(forward(image.repeat(2, 1, 1, 1).requires_grad_()))
    return [[seen[point] for point in level.points] for level in levels]


def _all_or_none(steps: Sequence[Tensor | None]) -> tuple[Tensor, ...] | None:
    known = tuple(step for step in steps if step is not None)
    return known if len(known) == len(steps) else None


def _is_trusted(steps: tuple[Tensor, ...] | None, levels: Sequence[Level]) -> bool:
    """Whether the numbers that the graph leads tokens to hold, whatever the axes of features are.

    That no token changes its number holds in any axes.
    """
    if steps is None:
        return False
    same = levels[0].axes == levels[1].axes and all(map(is_in_order, steps))
    return same or all(level.axes[0].is_sequence for level in levels)


def _led(
    before: View,
    steps: Sequence[Tensor],
    level: Level,
    features: Sequence[Tensor],
    size: tuple[int, int],
) -> View | None:
    """Return the view of a level to which the tokens of the one before it were led."""
    passes = []
    for view, step, part in zip(before.passes, steps, features, strict=True):
        length = level.axes[0].sequence(part).shape[1]
        if is_in_order(step) and length == len(step):
            passes.append(view)
            continue
        if view.axes is not level.axes[0]:
            return None
        found = places(_moved_along(view, step, length), size)
        if found is None:
            return None
        passes.append(view_of(level.axes[0], found, level.axes[0].cells(part)))
    return joined_view(passes) if len({view.grid for view in passes}) == 1 else None


def _moved_along(view: FeatureView, step: Tensor, count: int) -> Movement:
    """Return where tokens lie that were made of those of a view: amid what each was made of."""
    order = torch.arange(view.length) if view.order is None else view.order
    numbers = step[order[view.prefix :]]
    cells = torch.arange(len(numbers))
    down = (cells // view.grid[1] + 0.5) / view.grid[0]
    right = (cells % view.grid[1] + 0.5) / view.grid[1]
    known = numbers >= 0
    made_of = torch.zeros(count, dtype=torch.float64).index_add_(
        0, numbers[known], torch.ones(int(known.sum()), dtype=torch.float64)
    )
    centers = [
        torch.zeros(count, dtype=torch.float64).index_add_(0, numbers[known], x[known].double())
        / made_of.clamp_min(1)
        for x in (down, right)
    ]
    return Movement((made_of > 0).double(), *centers)


def _by_number(before: View, features: Sequence[Tensor], size: tuple[int, int]) -> View | None:
    """Return the view of a level whose shape alone tells: that of the one before it, if any.

    Or that of a feature map in the same axes whose cells are too few to be told apart.
    """
    pairs = list(zip(before.passes, features, strict=True))
    if any(part.dim() != (3 if view.axes.is_sequence else 4) for view, part in pairs):
        return None
    if all(view.axes.sequence(part).shape[1] == view.length for view, part in pairs):
        return before
    axes, part = pairs[0][0].axes, features[0]
    cells = axes.cells(part)
    few = not axes.is_sequence and 1 < cells[0] * cells[1] <= _FEW_CELLS
    coarse = len(pairs) == 1 and few and has_aspect(cells, size)
    return FeatureView(axes, cells) if coarse else None
