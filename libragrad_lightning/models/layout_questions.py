"""Where the tokens are in the values of an operation, which may have other axes than the features.

Shapes tell what is possible, and the graph whether it is so: before tokens mix in a block, the
values of some tokens depend on these tokens of its input alone; behind that, these tokens of its
output depend on them alone. Where convolutions mix neighbors, that holds for halves of the image
but for their borders. What holds of neither, such as values of windows, belongs to no token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from libragrad_lightning.backward import Node
from libragrad_lightning.models.feature_view import FeatureView
from libragrad_lightning.models.image_axes import ImageAxis
from libragrad_lightning.models.noise import noise_like
from libragrad_lightning.models.token_layouts import MAP_LAYOUTS, TokenLayout, possible_layouts

_LOCAL, _LOCAL_IN_MAPS = 0.9, 0.6
"""Which share of a gradient must be in the half of the image that was asked about: of tokens, and
of feature maps, which convolutions blur."""


def layouts_of_sites(
    block: BlockGraph, sites: Sequence[tuple[Node | None, ImageAxis | None]]
) -> list[TokenLayout | None]:
    """Return where tokens are in the values of operations of a block.

    Args:
        block: The block.
        sites: The operations, None for those whose rows were picked from other values; and where
            images are in the values of each.

    Returns:
        For every site its layout, `NONE` if its values are not those of single tokens in their
        order; None where the shape tells.
    """
    possible = [_Possible.at(block, node, axis) for node, axis in sites]
    asked = [] if block.is_unknown else [i for i, one in enumerate(possible) if one.is_open]
    found = _exact(block, {i: possible[i] for i in asked})
    found |= _local(block, {i: possible[i] for i in asked if i not in found})
    return [found.get(i) for i in range(len(possible))]


def _exact(block: BlockGraph, asked: Mapping[int, _Possible]) -> dict[int, TokenLayout]:
    """Return the layouts of values that go with the same tokens of the block alone.

    Those before tokens mix are asked together: most blocks have the usual layout there.
    """
    kinds = (_Kind.SOME,)
    found: dict[int, TokenLayout] = {}
    for i, gradient in _needed(block, asked, kinds).items():
        one = asked[i]
        for layout in one.layouts:
            if _shares(block, one, layout, gradient, kinds) == [1]:
                found.setdefault(i, layout)
    left = {i: one for i, one in asked.items() if i not in found}
    if left and all(one.keeps_length(block) for one in left.values()):
        usual = [(one, one.layouts[0]) for one in left.values()]
        if _depending(block, usual, kinds) == [1]:
            found |= {i: one.layouts[0] for i, one in left.items()}
    return found


def _local(block: BlockGraph, asked: Mapping[int, _Possible]) -> dict[int, TokenLayout]:
    """Return the layouts of values that go best with the halves of the image, or `NONE`."""
    halves = (_Kind.LEFT, _Kind.TOP)
    together = block.batch > 1 and not any(one.is_mixed for one in asked.values())
    rounds = [halves] if together else [(half,) for half in halves]
    needed, found = [_needed(block, asked, kinds) for kinds in rounds], {}
    for i, one in asked.items():
        shares = {}
        for layout in one.layouts:
            shares[layout] = 1.0
            for kinds, gradients in zip(rounds, needed, strict=True):
                behind = _shares(block, one, layout, gradients[i], kinds)
                before = _depending(block, [(one, layout)], kinds)
                shares[layout] = min(shares[layout], *map(max, behind, before))
        best = max(shares, key=lambda layout: shares[layout])
        least = _LOCAL_IN_MAPS if best in MAP_LAYOUTS else _LOCAL
        found[i] = best if shares[best] >= least else TokenLayout.NONE
    return found


class _Kind(Enum):
    """Which tokens are asked about."""

    SOME = "half of them, drawn at random"
    LEFT = "those in the left half of the image"
    TOP = "those in its upper half"

    def chosen(self, view: FeatureView) -> Tensor:
        """Return them, in the order of the model, `[T]`."""
        if self is _Kind.SOME:
            generator = torch.Generator().manual_seed(0)
            return torch.randperm(view.length, generator=generator) < view.length // 2
        rows, columns = view.grid
        cells = torch.arange(rows * columns)
        half = cells % columns * 2 < columns if self is _Kind.LEFT else cells // columns * 2 < rows
        chosen = torch.cat([torch.zeros(view.prefix, dtype=torch.bool), half])
        return chosen if view.order is None else chosen[view.order.argsort()]


@dataclass(frozen=True)
class BlockGraph:
    """The input and the output of a block in a recorded graph.

    Attributes:
        batch: Number of images.
        views: How to read the input, then the output; the latter only if it is there.
        before: The input.
        after: The output; None behind the last block.
        is_unknown: Whether the output could not be recorded.
    """

    batch: int
    views: Sequence[FeatureView]
    before: Tensor
    after: Tensor | None
    is_unknown: bool = False


@dataclass(frozen=True)
class _Possible:
    """The layouts that the values of an operation may have, for the first view that fits any."""

    node: Node
    axis: ImageAxis | None
    view: FeatureView
    layouts: Sequence[TokenLayout]

    @classmethod
    def at(cls, block: BlockGraph, node: Node, axis: ImageAxis | None) -> _Possible:
        if node is None:
            return cls(node, axis, block.views[0], [])
        shape = _first(_numbers(node), axis, block.batch).shape
        for view in block.views:
            layouts = possible_layouts(shape, block.batch, view)
            if layouts:
                return cls(node, axis, view, layouts)
        return cls(node, axis, block.views[0], [])

    @property
    def is_open(self) -> bool:
        """Whether there is something to ask: of a feature map, if its axes may be in two orders."""
        return len(self.layouts) > 1 or any(
            self.view.axes.is_sequence or layout not in MAP_LAYOUTS for layout in self.layouts
        )

    @property
    def is_mixed(self) -> bool:
        """Whether values depend on several images."""
        return self.axis is not None and self.axis.is_mixed

    def keeps_length(self, block: BlockGraph) -> bool:
        """Whether there are as many tokens as enter the block."""
        return self.view.length == block.views[0].length

    def tokens(self, layout: TokenLayout, batch: int) -> Tensor:
        """Return the numbers of values by token, `[B, T, D]`."""
        return layout.tokens(_first(_numbers(self.node), self.axis, batch), batch, self.view)

    def weights(self, layout: TokenLayout, batch: int, kinds: Sequence[_Kind]) -> Tensor:
        """Return noise at the values of some tokens, and zeros elsewhere."""
        metadata = self.node._input_metadata[0]
        shape, device = tuple(metadata.shape), metadata.device
        values = torch.zeros(shape, dtype=metadata.dtype, device=device)
        chosen = self.tokens(layout, batch)[_by_image(kinds, self.view, batch)].flatten()
        chosen = chosen.to(device)
        values.flatten()[chosen] = noise_like(values, 1).flatten()[chosen]
        return values


def _numbers(node: Node) -> Tensor:
    shape = tuple(node._input_metadata[0].shape)
    return torch.arange(math.prod(shape)).view(shape)


def _first(values: Tensor, axis: ImageAxis | None, batch: int) -> Tensor:
    if axis is None or axis.is_mixed or axis.axis >= values.dim():
        return values
    return axis.batch_first(values, batch)


def _by_image(kinds: Sequence[_Kind], view: FeatureView, batch: int) -> Tensor:
    """Return the tokens of each image that are asked about, `[B, T]`; images take turns."""
    return torch.stack([kinds[i % len(kinds)].chosen(view) for i in range(batch)])


def _needed(
    block: BlockGraph, asked: Mapping[int, _Possible], kinds: Sequence[_Kind]
) -> dict[int, Tensor | None]:
    """Return the gradients of some tokens of the output at all operations."""
    if block.after is None or not asked:
        return dict.fromkeys(asked)
    view = block.views[-1]
    values = torch.zeros_like(block.after)
    tokens = view.axes.sequence(values)
    chosen = _by_image(kinds, view, block.batch).to(values.device)
    tokens[chosen] = noise_like(tokens, 1)[chosen]
    edges = [GradientEdge(one.node, 0) for one in asked.values()]
    found = torch.autograd.grad(
        [block.after], edges, [values], retain_graph=True, allow_unused=True
    )
    return dict(zip(asked, found, strict=True))


def _shares(
    block: BlockGraph,
    one: _Possible,
    layout: TokenLayout,
    gradient: Tensor | None,
    kinds: Sequence[_Kind],
) -> list[float]:
    """Return which share of the gradient of each kind is at its tokens; 1 if all of it."""
    if gradient is None:
        return [0.0] * len(kinds)
    tokens = one.tokens(layout, block.batch).to(gradient.device)
    return _parts(gradient.detach().abs().flatten()[tokens].sum(2), one.view, kinds)


def _depending(
    block: BlockGraph, values: Sequence[tuple[_Possible, TokenLayout]], kinds: Sequence[_Kind]
) -> list[float]:
    """Return which share of the gradient of each kind's values is at its tokens before."""
    view = block.views[0]
    gradients: Sequence[Tensor | None] = torch.autograd.grad(
        [GradientEdge(one.node, 0) for one, _ in values],
        [block.before],
        [one.weights(layout, block.batch, kinds) for one, layout in values],
        retain_graph=True,
        allow_unused=True,
    )
    gradient = gradients[0]
    if gradient is None:
        return [0.0] * len(kinds)
    return _parts(view.axes.sequence(gradient).abs().sum(2), view, kinds)


def _parts(size: Tensor, view: FeatureView, kinds: Sequence[_Kind]) -> list[float]:
    """Return which share of sizes `[B, T]` is at the tokens of each kind; 1 if all of it."""
    found = []
    for i, kind in enumerate(kinds):
        sizes, chosen = size[i :: len(kinds)].sum(0).double().cpu(), kind.chosen(view)
        whole, outside = float(sizes.sum()), float(sizes[~chosen].sum())
        share = (
            0.0 if whole == 0 or not math.isfinite(whole) else float(sizes[chosen].sum()) / whole
        )
        found.append(1.0 if share and outside == 0 else min(share, 0.999999))
    return found
