"""Puts the contributions of biases in their places: on tokens where they have one, else per image.

The sum of all contributions at or after block l completes the attribution at the input of block l
(FullGrad; reference: Mehri et al. 2025, section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.backward import LibraGradError
from libragrad_lightning.backward.biases import BiasSite
from libragrad_lightning.models import (
    FeatureView,
    ImageAxis,
    TokenLayout,
    View,
    possible_layouts,
)

_Place: TypeAlias = tuple[int, int]
"""The numbers of a level and of a pass."""


@dataclass
class BiasLedger:
    """Collects bias contributions by token and image while gradients are computed.

    Call it as the `on_bias` of `libragrad_lightning.backward.grad`.

    Attributes:
        batch: Number of images.
        views: How to read the explained tensors, in the order of levels.
        image_axes: Where images are in the values of operations, by the number of the operation.
        token_layouts: Where tokens are in them, where their shape does not tell.
        disordered: The levels in whose blocks some values are not those of tokens in their order.
    """

    batch: int
    views: Sequence[View]
    image_axes: Mapping[int, ImageAxis | None] = field(default_factory=dict, repr=False)
    token_layouts: Mapping[int, TokenLayout] = field(default_factory=dict, repr=False)
    disordered: set[int] = field(default_factory=set)
    _placed: dict[_Place, dict[frozenset[int], Tensor]] = field(default_factory=dict, repr=False)
    _unplaced: dict[frozenset[int], Tensor] = field(default_factory=dict, repr=False)

    def __call__(self, site: BiasSite, contribution: Tensor) -> None:
        """Add one elementwise contribution."""
        axis = self.image_axes.get(site.number)
        if axis is not None and axis.operation == site.operation and contribution.dim():
            if axis.is_mixed:
                self._check_alone(site, contribution)
            else:
                contribution = axis.batch_first(contribution, self.batch)
        layout = self.token_layouts.get(site.number)
        level, number = divmod(max(site.depends_on), len(self.views[0].passes))
        levels = range(level, min(level + 2, len(self.views)))
        if layout is TokenLayout.NONE:
            levels = range(0)
            self.disordered.add(level)
        for there in levels:  # it arose in the block of the level, or on the way to the next
            view = self.views[there].passes[number]
            values = contribution_per_token(contribution, self.batch, view, layout)
            if values is not None:
                at_place = self._placed.setdefault((there, number), {})
                self._add(at_place, site.depends_on, values)
                if view.prefix != self.views[0].passes[number].prefix:
                    self._add(self._unplaced, site.depends_on, values[:, : view.prefix].sum(1))
                return
        per_image = contribution_per_image(contribution, self.batch)
        self._add(self._unplaced, site.depends_on, per_image)

    def _check_alone(self, site: BiasSite, contribution: Tensor) -> None:
        if self.batch > 1 and bool(contribution.any()):
            raise LibraGradError(
                f"The images of a batch see each other in this model ({site.operation} of shape "
                f"{tuple(contribution.shape)}), so that none has a map of its own; pass "
                "`batch_size=1`."
            )

    def on_tokens(self, like: Tensor) -> Tensor:
        """Return `[L, B, T]`: for each level, the biases at or after it that belong to a token.

        Those of later levels with another grid are moved to the grid of the first.
        """
        zero = like.new_zeros(self.batch, self.views[0].length)
        on_first: dict[frozenset[int], Tensor] = {}
        for place, sums in self._placed.items():
            for depends_on, values in sums.items():
                self._add(on_first, depends_on, self._on_first_level(place, values))
        return self._by_level(on_first, zero)

    def on_images(self, like: Tensor) -> Tensor:
        """Return `[L, B]`: for each level, the biases that belong to the image as a whole."""
        return self._by_level(self._unplaced, like.new_zeros(self.batch))

    def _by_level(self, sums: dict[frozenset[int], Tensor], zero: Tensor) -> Tensor:
        passes = len(self.views[0].passes)
        parts = [range(level * passes, (level + 1) * passes) for level in range(len(self.views))]
        return torch.stack(
            [
                sum((v for d, v in sums.items() if not d.isdisjoint(part)), start=zero)
                for part in parts
            ]
        )

    def _on_first_level(self, place: _Place, values: Tensor) -> Tensor:
        """Move values on tokens of one pass to those of all passes of the first level."""
        level, number = place
        passes = self.views[0].passes
        values = self.views[level].passes[number].moved(values, passes[number])
        lengths = [view.length for view in passes]
        around = (sum(lengths[:number]), sum(lengths[number + 1 :]))
        return F.pad(values, around) if any(around) else values

    @staticmethod
    def _add(
        sums: dict[frozenset[int], Tensor], depends_on: frozenset[int], values: Tensor
    ) -> None:
        sums[depends_on] = sums.get(depends_on, 0) + values


def contribution_per_token(
    contribution: Tensor, batch: int, view: FeatureView, layout: TokenLayout | None = None
) -> Tensor | None:
    """Sum an elementwise contribution to `[B, T]`, or return None if it has no such axis.

    Args:
        contribution: The contribution, images first.
        batch: Number of images.
        view: How to read the tokens.
        layout: Where they are in the contribution, if its shape allows for several layouts.
    """
    layouts = possible_layouts(contribution.shape, batch, view)
    if not layouts:
        return None
    chosen = layout if layout in layouts else layouts[0]
    assert chosen is not None
    found = chosen.tokens(contribution, batch, view).sum(2)
    return found if view.order is None else found[:, view.order.to(found.device)]


def contribution_per_image(contribution: Tensor, batch: int) -> Tensor:
    """Sum an elementwise contribution to `[B]`.

    What is zero adds nothing to any image, wherever they are in it, and what is not finite spoils
    them all.

    Raises:
        LibraGradError: If its first axis does not run over images.
    """
    if batch == 1:
        return contribution.sum().reshape(1)
    if contribution.dim() and contribution.shape[0] % batch == 0:
        return contribution.reshape(batch, -1).sum(1)
    if contribution.isfinite().all() and contribution.any():
        raise LibraGradError(
            f"A bias contribution of shape {tuple(contribution.shape)} cannot be told apart by "
            f"image in a batch of {batch}; pass `batch_size=1`."
        )
    return contribution.sum().expand(batch)
