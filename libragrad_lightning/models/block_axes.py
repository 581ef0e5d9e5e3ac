"""Where images are in the values of operations, measured once for blocks that are built alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.backward import PLAIN, Node, NodeReading, bias_sites, read_graph
from libragrad_lightning.models.feature_view import Features, FeatureView, View, parts_of
from libragrad_lightning.models.image_axes import ImageAxis, axes_of_pair

_SCALARS = (bool, int, float, str, type(None))

_Form: TypeAlias = tuple[object, ...]
"""What makes two blocks alike: their operations in order, with shapes, axes and numbers."""


def axes_by_block(
    logits: Tensor, features: Sequence[Features], views: Sequence[View]
) -> list[ImageAxis | None]:
    """Find where images are in a recorded forward pass of an image twice.

    Args:
        logits: `[2, C]`.
        features: The features of all levels.
        views: How to read them.

    Returns:
        For every site of biases, in their order; None where it is unknown.
    """
    parts = [part for level in features for part in parts_of(level)]
    ways = [view for level in views for view in level.passes]
    passes = len(views[0].passes)
    reading = read_graph([logits], parts, PLAIN)
    sites = bias_sites(reading)
    block_of = [site.reach.bit_length() - 1 for site in sites]
    known: dict[_Form, list[ImageAxis | None]] = {}
    found: dict[int, list[ImageAxis | None]] = {}
    forms = _forms(reading.nodes)
    for block in set(block_of):
        names = [s.operation for s, b in zip(sites, block_of, strict=True) if b == block]
        form = forms[block]
        last = block + passes >= len(parts)
        if last or form not in known or len(known[form]) != len(names):
            after = logits if last else parts[block + passes]
            gradient = None if last else _doubled(after, ways[block + passes])
            axes = list(_measured(after, parts[block], gradient).values())
            if len(axes) != len(names):  # It is entered from elsewhere too.
                return list(axes_of_pair(logits, features[0]).values())
            known[form] = axes
        found[block] = list(known[form])
    return [found[block].pop(0) for block in block_of]


def _measured(
    after: Tensor, before: Tensor, gradient: Tensor | None
) -> dict[int, ImageAxis | None]:
    """Return the axes of all sites of a block, by their numbers in order."""
    axes = axes_of_pair(after, before, gradient)
    sites = bias_sites(read_graph([after], [before], PLAIN))
    return {site.number: axes.get(site.number) for site in sites}


def _doubled(after: Tensor, view: FeatureView) -> Tensor:
    """Return a gradient of features, that of the second image twice that of the first."""
    values = torch.zeros_like(after)
    tokens = view.axes.sequence(values)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(tokens.shape[1:], generator=generator).to(tokens)
    tokens[0], tokens[1] = noise, 2 * noise
    return values


def _forms(nodes: Sequence[NodeReading]) -> dict[int, _Form]:
    """Return the form of every block."""
    operations: defaultdict[int, list[object]] = defaultdict(list)
    attributes: dict[str, list[str]] = {}
    for reading in nodes:
        block = reading.reach.bit_length() - 1
        operations[block].append(_form(reading.node, attributes))
    return {block: tuple(form) for block, form in operations.items()}


def _form(node: Node, attributes: dict[str, list[str]]) -> tuple[object, ...]:
    name = node.name()
    if name not in attributes:
        saved = [a for a in dir(node) if a.startswith("_saved_")]
        attributes[name] = [a for a in saved if _is_plain(getattr(node, a))]
    values = tuple(_frozen(getattr(node, a)) for a in attributes[name])
    return name, tuple(node._input_metadata[0].shape), values


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, _SCALARS)


def _frozen(value: Any) -> object:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
