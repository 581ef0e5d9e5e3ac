"""Tells modules that are blocks from containers of blocks, by the weights that they hold."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from libragrad_lightning.models.calls import Call

_INNER_SHARE = 0.5
"""A module is divided into the blocks inside of it if they hold more than this share of it."""


def innermost_that_matter(calls: Sequence[Call]) -> list[Call]:
    """Divide containers and stages into their blocks, but not blocks into their gates.

    Args:
        calls: Calls in the order in which they return, so that inner ones come first.
    """
    chosen: list[Call] = []
    for call in calls:
        inner = [c for c in chosen if call.contains(c)]
        share = sum(map(_size, {c.module for c in inner})) / max(1, _size(call.module))
        if share <= _INNER_SHARE:
            chosen = [c for c in chosen if c not in inner] + [call]
    return chosen


def is_composed(module: nn.Module) -> bool:
    """Return whether several layers with weights are in a module."""
    return sum(map(has_weights, module.modules())) >= 2


def has_weights(module: nn.Module) -> bool:
    """Return whether a module is a layer with weights of its own."""
    return any(p.dim() > 1 for p in module.parameters(recurse=False))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
