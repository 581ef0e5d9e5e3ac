"""Operations whose constants autograd keeps nothing of: thresholds, and steps such as `sign`.

A threshold puts a number where its operand is small; a step is constant but for its jumps. While a
`ConstantObserver` is active, what they add is noted with their graph node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from libragrad_lightning.backward.operations import ConstantOf, Node

STEP_NAMES = ("Ceil", "Floor", "Round", "Sign", "Trunc")
"""Piecewise constant operations."""

_NUMBER = "libragrad_lightning.threshold"


def is_step(node: Node) -> bool:
    """Return whether a node is a piecewise constant operation."""
    return node.name().startswith(tuple(f"{name}Backward" for name in STEP_NAMES))


def note_threshold(node: Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Note the number that a threshold puts in place of small values."""
    if node.name().startswith("ThresholdBackward"):
        node.metadata[_NUMBER] = kwargs.get("value", args[2] if len(args) > 2 else 0.0)


def threshold_offset(node: Node, constant_of: ConstantOf) -> Tensor:
    """Return the number that a threshold puts, where it does, if it was noted."""
    x: Tensor = node._saved_self
    return torch.where(x > node._saved_threshold, 0.0, node.metadata.get(_NUMBER, 0.0)).to(x.dtype)
