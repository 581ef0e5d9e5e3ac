"""Where the tokens are in the values of an operation, which may have other axes than the features.

Shapes tell what is possible, and the graph whether it is so: before tokens mix in a block, the
values of some tokens depend on these tokens of its input alone; behind that, these tokens of its
output depend on them alone. Where convolutions mix neighbours, that holds for halves of the image
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
from libragrad_lightning.models.feature_view import Axes, FeatureView
from libragrad_lightning.models.image_axes import ImageAxis
from libragrad_lightning.models.noise import noise_like

_LOCAL, _LOCAL_IN_MAPS = 0.9, 0.6
"""Which share of a gradient must be in the half of the image that was asked about: of tokens, and
of feature maps, which convolutions blur."""


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


_MAPS = (TokenLayout.MAP_FIRST, TokenLayout.MAP_LAST)


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
    asked = [one for one in possible if one.is_open]
    if not asked or block.is_unknown:
        return [None] * len(sites)
    needed = zip(*(_needed(block, asked, kind) for kind in _Kind), strict=True)
    chosen = (
        _chosen(block, one, dict(zip(_Kind, gradients, strict=True)))
        for one, gradients in zip(asked, needed, strict=True)
    )
    return [next(chosen) if one.is_open else None for one in possible]


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
            self.view.axes.is_sequence or layout not in _MAPS for layout in self.layouts
        )

    def tokens(self, layout: TokenLayout, batch: int) -> Tensor:
        """Return the numbers of values by token, `[B, T, D]`."""
        return layout.tokens(_first(_numbers(self.node), self.axis, batch), batch, self.view)


def _numbers(node: Node) -> Tensor:
    shape = tuple(node._input_metadata[0].shape)
    return torch.arange(math.prod(shape)).view(shape)


def _first(values: Tensor, axis: ImageAxis | None, batch: int) -> Tensor:
    usual = axis is None or axis.is_mixed or axis.axis >= values.dim()
    return values if usual or axis is None else axis.batch_first(values, batch)


def _chosen(
    block: BlockGraph, one: _Possible, needed: Mapping[_Kind, Tensor | None]
) -> TokenLayout:
    """Return the layout that fits best, or `NONE`."""
    shares = {}
    for layout in one.layouts:
        tokens = one.tokens(layout, block.batch)
        if _fitting(block, one, tokens, needed, _Kind.SOME) == 1:
            return layout
        halves = (_Kind.LEFT, _Kind.TOP)
        shares[layout] = min(_fitting(block, one, tokens, needed, half) for half in halves)
    best = max(shares, key=lambda layout: shares[layout])
    least = _LOCAL_IN_MAPS if best in _MAPS else _LOCAL
    return best if shares[best] >= least else TokenLayout.NONE


def _fitting(
    block: BlockGraph,
    one: _Possible,
    tokens: Tensor,
    needed: Mapping[_Kind, Tensor | None],
    kind: _Kind,
) -> float:
    """Return how well some tokens fit values, before or behind where tokens mix; 1 if exactly."""
    behind = _share(needed[kind], tokens, one.view, kind)
    return behind if behind == 1 else max(behind, _depending(block, one, tokens, kind))


def _needed(block: BlockGraph, asked: Sequence[_Possible], kind: _Kind) -> list[Tensor | None]:
    """Return the gradients of some tokens of the output at all operations."""
    if block.after is None:
        return [None] * len(asked)
    view = block.views[-1]
    chosen = kind.chosen(view).to(block.after.device)
    values = torch.zeros_like(block.after)
    tokens = view.axes.sequence(values)
    tokens[:, chosen] = noise_like(tokens, 1)[:, chosen]
    edges = [GradientEdge(one.node, 0) for one in asked]
    found = torch.autograd.grad(
        [block.after], edges, [values], retain_graph=True, allow_unused=True
    )
    return list(found)


def _share(gradient: Tensor | None, tokens: Tensor, view: FeatureView, kind: _Kind) -> float:
    """Return which share of a gradient is at some tokens; 1 if all of it."""
    if gradient is None:
        return 0.0
    size = gradient.detach().abs().flatten()[tokens.to(gradient.device)].sum((0, 2)).double().cpu()
    return _part(size, kind.chosen(view))


def _depending(block: BlockGraph, one: _Possible, tokens: Tensor, kind: _Kind) -> float:
    """Return the share of the gradient of some tokens' values that is at these tokens before."""
    metadata = one.node._input_metadata[0]
    values = torch.zeros(tuple(metadata.shape), dtype=metadata.dtype, device=metadata.device)
    chosen = tokens[:, kind.chosen(one.view)].flatten().to(values.device)
    values.flatten()[chosen] = noise_like(values, 1).flatten()[chosen]
    edge = [GradientEdge(one.node, 0)]
    (gradient,) = torch.autograd.grad(
        edge, [block.before], [values], retain_graph=True, allow_unused=True
    )
    view = block.views[0]
    same = view.length == one.view.length
    if gradient is None or (kind is _Kind.SOME and not same):
        return 0.0
    size = view.axes.sequence(gradient).abs().sum((0, 2)).double().cpu()
    return _part(size, kind.chosen(view))


def _part(size: Tensor, chosen: Tensor) -> float:
    whole = float(size.sum())
    if whole == 0 or not math.isfinite(whole):
        return 0.0
    outside = float(size[~chosen].sum())
    return 1.0 if outside == 0 else min(float(size[chosen].sum()) / whole, 0.999999)
