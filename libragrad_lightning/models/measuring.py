"""Reads the features of levels by the pixels that move their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from libragrad_lightning.models.feature_view import Axes, FeatureView, View, joined_view
from libragrad_lightning.models.levels import Level, features_at
from libragrad_lightning.models.places import (
    IMAGES,
    Movement,
    Places,
    has_aspect,
    map_places,
    moved_images,
    movement,
    other_image,
    outer_middles,
    places,
)

_DRAWS, _DEEP_DRAWS = 8, 4
"""How often noise is drawn at most: for tokens that enter, and for levels deep in the model."""
_SPREAD = 0.5
"""How far apart the outer cells must be, of the distance between those of the whole image."""
_LIKE_A_MAP = 0.5
"""How well the cells of a feature map must follow the image at least, as a correlation."""


def measured_entry(
    forward: Callable[[Tensor], object], level: Level, image: Tensor, readout: Sequence[int]
) -> View | None:
    """Return how to read the features that enter, whatever an image holds.

    Where tokens lie nowhere, or in an unusual order, another image is asked too: the first one may
    be without effect in places, and a model may sort its tokens by what they hold. None unless they
    see about all of the image, in all passes alike.
    """
    view = measured_levels(forward, [level], image, readout)[0]
    if view is None or all(part.order is None and not part.prefix for part in view.passes):
        return view if view is None or _sees_all(view) else None
    again = measured_levels(forward, [level], other_image(image), readout)[0]
    if again is None or not _sees_all(again):
        return None
    pairs = list(zip(view.passes, again.passes, strict=True))
    # The first image may hide some patches.
    same = all(order_of(one) == order_of(two) for one, two in pairs)
    hidden = all(one.prefix > two.prefix for one, two in pairs)
    return again if same or hidden else None


def order_of(view: FeatureView) -> tuple[object, ...]:
    """Return what must be the same of a view for all images."""
    order = None if view.order is None else tuple(view.order.tolist())
    return view.grid, view.prefix, order


def _sees_all(view: View) -> bool:
    """Whether the cells of all passes spread over the image, and lie in the same places."""
    first = view.passes[0].middles
    if first is None:
        return True
    measured = [(part.middles, part.grid) for part in view.passes if part.middles is not None]
    for middles, grid in measured:
        top, bottom, left, right = middles
        spans = zip((bottom - top, right - left), grid, strict=True)
        if any(abs(span) < _SPREAD * (count - 1) / count for span, count in spans):
            return False
        limits = (0.4 / count for count in grid for _ in range(2))
        pairs = zip(middles, first, limits, strict=True)
        if any(abs(one - two) > limit for one, two, limit in pairs):
            return False
    return True


def measured_levels(
    forward: Callable[[Tensor], object],
    levels: Sequence[Level],
    image: Tensor,
    readout: Sequence[int],
    deep: bool = False,
) -> list[View | None]:
    """Return how to read the features of some levels, by the pixels that move their tokens.

    Where one draw of noise leaves it open, several are taken together.

    Args:
        forward: Runs the model on images.
        levels: The levels.
        image: `[1, C, H, W]`.
        readout: The tokens on which the scores depend, the class token among them.
        deep: Whether tokens have mixed before these levels.
    """
    found: list[View | None] = [None] * len(levels)
    draws: list[list[tuple[Tensor, ...]]] = [[] for _ in levels]
    size = (image.shape[-2], image.shape[-1])
    for seed in range(_DEEP_DRAWS if deep else _DRAWS):
        left = [i for i in range(len(levels)) if found[i] is None]
        if not left:
            break
        features = features_at(forward, [levels[i] for i in left], moved_images(image, seed))
        for i, parts in zip(left, features, strict=True):
            draws[i].append(parts)
            passes = list(zip(*draws[i], strict=True))
            found[i] = _view(passes, levels[i].axes, size, readout, deep)
    return found


def _view(
    features: Sequence[Sequence[Tensor]],
    axes: Sequence[Axes],
    size: tuple[int, int],
    readout: Sequence[int],
    deep: bool,
) -> View | None:
    """Return the view of a level, from the features of each pass under some draws of noise."""
    passes: list[FeatureView] = []
    for draws in features:
        found = (_of_one(draws, a, size, readout, deep) for a in axes)
        view = next(filter(None, found), None) or _of_map(draws, axes, size)
        if view is None or (passes and view.grid != passes[0].grid):
            return None
        passes.append(view)
    return joined_view(passes)


def _moved(draws: Sequence[Tensor], axes: Axes) -> Movement:
    return movement([axes.sequence(features) for features in draws])


def _of_one(
    draws: Sequence[Tensor],
    axes: Axes,
    size: tuple[int, int],
    readout: Sequence[int],
    deep: bool,
) -> FeatureView | None:
    if len(axes.sequence(draws[0])) != IMAGES or len({d.shape for d in draws}) > 1:
        # An axis was taken for images because there were as many, or the number of tokens depends
        # on what the image holds.
        return None
    cells = axes.cells(draws[0])
    moved = _moved(draws, axes)
    found = places(moved, size, None if axes.is_sequence else cells, deep)
    if found is None:
        return None
    order = _class_token_first(found, readout) if axes.is_sequence else found.order
    view = view_of(axes, replace(found, order=order), cells)
    return replace(view, middles=outer_middles(moved, found))


def _of_map(
    draws: Sequence[Tensor], axes: Sequence[Axes], size: tuple[int, int]
) -> FeatureView | None:
    """Return the view of a feature map whose cells see too much of the image to be told apart.

    They lie row by row if they follow the image that way, on the whole. If the shape of the map
    allows for both orders of axes, the one counts in which they follow it better.
    """
    features = draws[0]
    if features.dim() != 4:
        return None
    fitting = [a for a in axes if has_aspect(a.cells(features), size)]
    located = {a: map_places(_moved(draws, a), a.cells(features)) for a in fitting}
    best = max(located, key=lambda a: located[a][0], default=None)
    if best is None or located[best][0] < _LIKE_A_MAP:
        return None
    return view_of(best, located[best][1], best.cells(features))


def view_of(axes: Axes, found: Places, cells: tuple[int, int]) -> FeatureView:
    """Return the view of features whose tokens have been located.

    Args:
        axes: The order of their axes.
        found: Where the tokens lie.
        cells: Rows and columns of the features, if they are a map.
    """
    order = None if found.is_usual else found.order
    own = None if axes.is_sequence or cells == found.grid else cells
    return FeatureView(axes, found.grid, found.prefix, order, own)


def _class_token_first(found: Places, readout: Sequence[int]) -> Tensor:
    """Return the order with the token that is read out first, of those that lie nowhere."""
    nowhere = found.order[: found.prefix].tolist()
    first = [token for token in nowhere if token in readout]
    others = [token for token in nowhere if token not in readout]
    return torch.cat(
        [torch.tensor([*first, *others], dtype=torch.int64), found.order[found.prefix :]]
    )
