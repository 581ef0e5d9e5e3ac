"""The axes that tokens may have in the values of an operation, other than those of the features."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from torch import Tensor

from libragrad_lightning.models.feature_view import Axes, FeatureView


class TokenLayout(Enum):
    """The axes of the values of an operation, images first."""

    MAP_FIRST = "[B, D, h, w]"
    MAP_LAST = "[B, h, w, D]"
    TOKENS = "[B, T, ...]"
    ROWS = "[B * T, ...]"
    TOKENS_LAST = "[B, D, T]"
    LAST_ROWS = "[B * D, T]"
    NONE = "[B, ...]"

    def tokens(self, values: Tensor, batch: int, view: FeatureView) -> Tensor:
        """Return values as `[B, T, D]`, tokens in the order of the model."""
        if self is TokenLayout.MAP_FIRST:
            return values.flatten(2).transpose(1, 2)
        if self is TokenLayout.MAP_LAST:
            return values.flatten(1, 2)
        if self is TokenLayout.TOKENS:
            return values.flatten(2)
        if self is TokenLayout.ROWS:
            return values.reshape(batch, view.length, -1)
        if self is TokenLayout.TOKENS_LAST:
            return values.transpose(1, 2)
        return values.view(batch, -1, view.length).transpose(1, 2)


MAP_LAYOUTS = (TokenLayout.MAP_FIRST, TokenLayout.MAP_LAST)


def possible_layouts(shape: Sequence[int], batch: int, view: FeatureView) -> list[TokenLayout]:
    """Return the layouts in which values of a shape may have the tokens of a view.

    The most usual one comes first. Feature maps occur in both orders of axes, whatever that of the
    level.
    """
    tokens, cells, found = view.length, view.cells or view.grid, []
    shape = tuple(shape)
    is_map = view.prefix == 0 or not view.axes.is_sequence
    if len(shape) == 4 and is_map and shape[0] == batch:
        maps = [(shape[2:], TokenLayout.MAP_FIRST), (shape[1:3], TokenLayout.MAP_LAST)]
        ordered = maps[::-1] if view.axes is Axes.CHANNELS_LAST else maps
        found += [layout for there, layout in ordered if there == cells]
    if len(shape) >= 3 and shape[:2] == (batch, tokens):
        found.append(TokenLayout.TOKENS)
    if len(shape) > 1 and shape[0] == batch * tokens and shape[0] > batch:
        found.append(TokenLayout.ROWS)
    if len(shape) == 3 and (shape[0], shape[2]) == (batch, tokens):
        found.append(TokenLayout.TOKENS_LAST)
    if len(shape) == 2 and shape[1] == tokens and shape[0] > batch and shape[0] % batch == 0:
        found.append(TokenLayout.LAST_ROWS)
    return found
