"""Follows tokens from level to level along the residual stream.

Between two levels the residual connection leads every token to where it goes on, while branches mix
tokens. If all operations along the connection keep the elements of a value in their order, no token
changes its number. Else the gradient of the numbers of tokens along the connection alone, stopped
in all branches, tells which token of the second level each token of the first one becomes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from libragrad_lightning.backward import (
    Correction,
    ElementwiseProduct,
    Flow,
    Linear,
    Node,
    Product,
    Role,
    RuleSet,
    grad,
    ordinary_gradient,
    stop_gradient,
    stop_statistic,
)
from libragrad_lightning.backward.graph import AnnotatedNode, Edge, annotate_graph
from libragrad_lightning.models.feature_view import Axes

_BASE = 64
"""Numbers are written in two digits, which every dtype holds exactly."""
_UNKNOWN = -1


def _products_of(kept: type[Product]) -> RuleSet:
    def rule(operation: Product, node: Node, flows: Sequence[Flow]) -> Correction:
        live = sum(flows[i] is not Flow.CONSTANT for i in operation.factors)
        keep = live == 1 and isinstance(operation, kept)
        return (ordinary_gradient if keep else stop_gradient)(operation, node, flows)

    branches = (Role.ACTIVATION, Role.GATE, Role.ATTENTION, Role.WEIGHTING, Role.POWER)
    stopped = dict.fromkeys(branches, stop_gradient)
    return RuleSet("stream", {**stopped, Role.STATISTIC: stop_statistic, Role.PRODUCT: rule})


_STREAM = _products_of(ElementwiseProduct)
"""Keeps what scales the elements of a value, and stops the gradients of what mixes them."""
_WIDENED = _products_of(Product)
"""Keeps linear layers too: where the number of tokens changes, they stand on the stream."""


def carried(features: Sequence[Tensor], axes: Sequence[Axes]) -> list[Tensor | None]:
    """Return of every tensor but the last the number of each of its tokens in the next one.

    Args:
        features: Tensors in a recorded graph of the same image twice, each behind the one before.
        axes: The order of the axes of each.

    Returns:
        Numbers, int64 `[T]`, with -1 for tokens of which nothing is known; None where tokens mix.
    """
    found: list[Tensor | None] = []
    start = 0
    while start < len(features) - 1:
        end = start + 1
        while end < len(features) and features[end].shape == features[start].shape:
            end += 1
        run = features[start:end]
        if len(run) > 1 and _are_same(run, axes[start]):
            found += [_numbers(run[0], axes[start])] * (len(run) - 1)
        else:
            pairs = pairwise(run)
            found += [_becomes(a, b, axes[start], axes[start], _STREAM) for a, b in pairs]
        if end < len(features):
            pair = (features[end - 1], features[end])
            found.append(_becomes(*pair, axes[end - 1], axes[end], _WIDENED))
        start = end
    return found


def _numbers(features: Tensor, axes: Axes) -> Tensor:
    return torch.arange(axes.sequence(features).shape[1])


def _are_same(run: Sequence[Tensor], axes: Axes) -> bool:
    """Whether the tokens of all tensors of a run are those of its last, number by number."""
    *earlier, last = run
    if _keeps_order(earlier, last):
        return True
    own = _numbers(last, axes)
    becoming = _becoming(earlier, last, [axes] * len(earlier), axes, _STREAM)
    return all(found is not None and torch.equal(found, own) for found in becoming)


def _keeps_order(earlier: Sequence[Tensor], last: Tensor) -> bool:
    """Whether all operations on the stream between tensors of one shape keep elements in order."""
    graph = annotate_graph([last], earlier, _STREAM)
    stream = [a for a in graph.nodes if a.flow is Flow.LIVE and graph.receives(a)]
    entering = {edge for a in stream for edge in _live_edges(a)}
    return graph.sources <= entering and all(map(_keeps_elements, stream))


def _keeps_elements(annotated: AnnotatedNode) -> bool:
    operation = annotated.operation
    reshapes = isinstance(operation, Linear) and operation.keeps_order
    if operation is None or not (reshapes or operation.elementwise):
        return False
    count = _count((annotated.node, 0))
    return all(_count(edge) == count for edge in _live_edges(annotated))


def _live_edges(annotated: AnnotatedNode) -> list[Edge]:
    pairs = zip(annotated.node.next_functions, annotated.flows, strict=True)
    return [edge for edge, flow in pairs if flow is Flow.LIVE]


def _count(edge: Edge) -> int:
    node, output = edge
    return math.prod(node._input_metadata[output].shape)


def _becomes(
    first: Tensor, second: Tensor, axes: Axes, second_axes: Axes, rules: RuleSet
) -> Tensor | None:
    (found,) = _becoming([first], second, [axes], second_axes, rules)
    return found


def _becoming(
    earlier: Sequence[Tensor],
    last: Tensor,
    axes: Sequence[Axes],
    last_axes: Axes,
    rules: RuleSet,
) -> list[Tensor | None]:
    """Return the number in the last tensor of every token of each earlier one."""
    count = last_axes.sequence(last).shape[1]
    whole = last.dtype.itemsize >= 4
    numbers: list[Tensor | None] = [
        torch.zeros_like(_numbers(tensor, a)) for tensor, a in zip(earlier, axes, strict=True)
    ]
    for base in [1] if whole else [1, _BASE]:
        digit = torch.arange(count) // base % (count if whole else _BASE)
        labels = last_axes.features(_labels(last_axes.sequence(last), digit), last_axes.cells(last))
        gradients = grad(
            last, earlier, labels.contiguous(), rules=rules, retain_graph=True, unknown="ignore"
        )
        for i, gradient in enumerate(gradients):
            before, read = numbers[i], _digits(axes[i].sequence(gradient))
            numbers[i] = (
                None
                if before is None or read is None
                else torch.where(read == _UNKNOWN, _UNKNOWN, before + base * read)
            )
    return numbers


def _labels(like: Tensor, digit: Tensor) -> Tensor:
    """Return ones for the first image, and for the second the digit of every token, plus one.

    What does not mix tokens hands on the second as that multiple of the first. Signs are drawn by
    channel, as a norm has no gradient of what is the same in all channels.
    """
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (like.shape[2],), generator=generator).to(like) * 2 - 1
    pair = torch.stack([torch.ones_like(digit), digit + 1]).to(like)
    return pair[:, :, None] * signs


def _digits(gradient: Tensor) -> Tensor | None:
    """Return the digit that every token was handed, or None if any was handed several."""
    of_one, of_digit = gradient.detach()
    shows = of_one.abs() > 1e-3 * of_one.abs().amax()
    known = shows.any(dim=1)
    if not bool(known.any()):
        return None
    ratio = torch.where(shows, of_digit / torch.where(shows, of_one, 1), 0).double()
    digit = (ratio.sum(1) / shows.sum(1).clamp_min(1)).round()
    tolerance = max(0.02, 4 * torch.finfo(gradient.dtype).eps * float(digit.max()))
    off = torch.where(shows, (ratio - digit[:, None]).abs(), 0)
    if tolerance > 0.25 or bool((off > tolerance).any()):
        return None
    return torch.where(known, digit.long() - 1, _UNKNOWN).cpu()
