"""What a rule is, and the two that fit operations of every role.

A rule decides, from an operation and the flows of its operands, how the gradients that one node
hands on are weighed or rewritten. Rule sets are tables of rules. The rules of single roles stand in
the files of these roles.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

from libragrad_lightning.backward.graph import Correction, Flow, Node, Operation

Rule: TypeAlias = Callable[[Any, Node, Sequence[Flow]], Correction]
"""Decides the correction of a node from its operation, which is of the role that the rule is for,
and the flows of its operands."""


def ordinary_gradient(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Leave the gradient alone (locally affine operations are complete, Thm 1)."""
    return Correction.ordinary(flows)


def stop_gradient(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Hold the value of the operation constant (Thm 5)."""
    return Correction((0.0,) * len(flows))


def gradient_of(edges: Collection[int], flows: Sequence[Flow]) -> Correction:
    """Leave the gradients of some operands alone, and stop those of all others (Thm 5)."""
    return Correction(tuple(float(i in edges) for i in range(len(flows))))
