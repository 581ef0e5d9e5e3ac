"""Where the tokens are in the values of an operation, which may have other axes than the features.

Shapes tell, unless several readings of a shape fit, as where there are as many channels as tokens.
Then the graph is asked: before tokens mix in a block, the values of some tokens depend on these
tokens of its input alone; behind that, these tokens of its output depend on them alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from libragrad_lightning.backward import PLAIN, Node, read_graph
from libragrad_lightning.models.feature_view import Axes, Features, FeatureView, View, parts_of
from libragrad_lightning.models.image_axes import ImageAxis


class TokenLayout(Enum):
    """The axes of the values of an operation, images first."""

    MAP_FIRST = "[B, D, h, w]"
    MAP_LAST = "[B, h, w, D]"
    TOKENS = "[B, T, ...]"
    ROWS = "[B * T, ...]"
    TOKENS_LAST = "[B, D, T]"
    LAST_ROWS = "[B * D, T]"

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


def token_layouts(
    logits: Tensor,
    features: Sequence[Features],
    views: Sequence[View],
    axes: Mapping[int, ImageAxis | None],
) -> Mapping[int, TokenLayout]:
    """Return the layouts of sites whose shape allows for several, by the numbers of the sites.

    Args:
        logits: `[B, C]`, of a recorded forward pass.
        features: The features of all levels in it.
        views: How to read them.
        axes: Where images are in the values of operations, by the number of the operation.
    """
    parts = [parts_of(level) for level in features]
    explained = [part for level in parts for part in level]
    passes, batch = len(parts[0]), len(logits)
    nodes = read_graph([logits], explained, PLAIN).nodes
    found = {}
    first = (number for number, axis in axes.items() if axis is None or axis.is_first)
    for number in first:
        level, one = divmod(nodes[number].reach.bit_length() - 1, passes)
        node, view = nodes[number].node, views[level].passes[one]
        layouts = possible_layouts(node._input_metadata[0].shape, batch, view)
        if len(layouts) > 1:
            after = parts[level + 1][one] if level + 1 < len(parts) else None
            asked = (_Block(view, parts[level][one], after, batch), node)
            fitting = [layout for layout in layouts if _fits(*asked, layout)]
            found[number] = (fitting or layouts)[0]
    return found


class _Block:
    """The input and the output of a block, to ask which tokens depend on which."""

    def __init__(self, view: FeatureView, before: Tensor, after: Tensor | None, batch: int) -> None:
        self.view, self.before, self.batch = view, before, batch
        same = after is not None and after.shape == before.shape
        self.after = after if same else None

    def chosen(self) -> Tensor:
        """Return which tokens are asked about, `[T]`: no pattern that another axis would have."""
        generator = torch.Generator().manual_seed(0)
        return torch.randperm(self.view.length, generator=generator) < self.view.length // 2


def _fits(block: _Block, node: Node, layout: TokenLayout) -> bool:
    return _depends_alone(block, node, layout) or _is_alone_needed(block, node, layout)


def _depends_alone(block: _Block, node: Node, layout: TokenLayout) -> bool:
    """Whether values of some tokens depend on these tokens of the block's input alone."""
    chosen = block.chosen()
    metadata = node._input_metadata[0]
    values = torch.zeros(tuple(metadata.shape), dtype=metadata.dtype, device=metadata.device)
    tokens = layout.tokens(values, block.batch, block.view)
    tokens[:, chosen.to(tokens.device)] = _noise(tokens)[:, chosen.to(tokens.device)]
    edge = [GradientEdge(node, 0)]
    (gradient,) = torch.autograd.grad(edge, [block.before], [values], retain_graph=True)
    return _touches_only(block.view.axes.sequence(gradient), chosen)


def _is_alone_needed(block: _Block, node: Node, layout: TokenLayout) -> bool:
    """Whether some tokens of the block's output depend on values of these tokens alone."""
    if block.after is None:
        return False
    chosen = block.chosen()
    values = torch.zeros_like(block.after)
    tokens = block.view.axes.sequence(values)
    tokens[:, chosen.to(tokens.device)] = _noise(tokens)[:, chosen.to(tokens.device)]
    edge = [GradientEdge(node, 0)]
    (gradient,) = torch.autograd.grad([block.after], edge, [values], retain_graph=True)
    return _touches_only(layout.tokens(gradient, block.batch, block.view), chosen)


def _noise(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(1)).to(like)


def _touches_only(tokens: Tensor, chosen: Tensor) -> bool:
    touched = (tokens != 0).any(dim=2).any(dim=0).cpu()
    return bool(touched.any()) and not bool((touched & ~chosen).any())
