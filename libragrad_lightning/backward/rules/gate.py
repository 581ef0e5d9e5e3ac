"""Gates, weights and statistics: operations whose value is held constant in the backward pass.

What multiplies a live value and has no affine part of its own, such as a softmax, a sigmoid or the
deviation in a composed normalization, is a constant factor (Thm 5, section 3.4, Cor 2). A gate that
is added to a live value is a bias of the explanation, and its contribution needs its value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.backward.graph import (
    Correction,
    Flow,
    Node,
    Operation,
    Role,
    wrapped_axis,
)
from libragrad_lightning.backward.rules.rule import stop_gradient


@dataclass(frozen=True)
class Gate(Operation):
    """A bounded or normalized weight, or another function without an affine part."""

    role: ClassVar[Role] = Role.GATE


@dataclass(frozen=True)
class Statistic(Operation):
    """A scale of a normalization that is composed of smaller operations.

    Attributes:
        linear_outputs: The outputs that are linear in the operand, such as the mean that is
            computed beside a variance.
    """

    role: ClassVar[Role] = Role.STATISTIC

    linear_outputs: tuple[int, ...] = ()


def stop_statistic(operation: Statistic, node: Node, flows: Sequence[Flow]) -> Correction:
    """Hold the scale of a normalization constant, but not the mean beside it (section 3.4)."""
    if not operation.linear_outputs:
        return stop_gradient(operation, node, flows)
    outputs = range(len(node._input_metadata))
    dead = tuple(i for i in outputs if i not in operation.linear_outputs)
    return Correction((1.0,) * len(flows), dead_outputs=dead)


def saved_result(node: Node) -> Tensor:
    """Return the value of an operation that keeps its result."""
    value: Tensor = node._saved_result
    return value


@dataclass(frozen=True)
class FunctionOfSelf:
    """The value of an operation that keeps its operand, as a function of the node.

    A class and not a closure, so that vocabularies can be pickled.
    """

    function: Callable[[Tensor], Tensor]

    def __call__(self, node: Node) -> Tensor:
        """Return the value."""
        return self.function(node._saved_self)


def softplus_value(node: Node) -> Tensor:
    """Return softplus(x)."""
    return F.softplus(node._saved_self, node._saved_beta, node._saved_threshold)


def variance(node: Node) -> Tensor:
    """Return the variance over the axes over which it was taken."""
    x: Tensor = node._saved_self
    axes = [wrapped_axis(axis) for axis in node._saved_dim or range(x.dim())]
    return x.var(axes, correction=node._saved_correction, keepdim=node._saved_keepdim)


def logaddexp_value(node: Node) -> Tensor:
    """Return log(exp(x) + exp(y))."""
    return torch.logaddexp(node._saved_self, node._saved_other)
