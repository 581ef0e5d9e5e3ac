"""The values of operations whose output a rule set holds constant.

A gate that multiplies a live value is a factor of it. A gate that is added to a live value is a
bias of the explanation, and its contribution needs its value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.backward.gates import wrapped_axis
from libragrad_lightning.backward.operations import Node


def saved_result(node: Node) -> Tensor:
    """Return the value of an operation that keeps its result."""
    value: Tensor = node._saved_result
    return value


def saved_output(node: Node) -> Tensor:
    """Return the value of a fused attention node."""
    value: Tensor = node._saved_output
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


def power_value(node: Node) -> Tensor:
    """Return x to a power."""
    value: Tensor = node._saved_self**node._saved_exponent
    return value


def quotient_value(node: Node) -> Tensor:
    """Return the quotient of two tensors."""
    value: Tensor = node._saved_self / node._saved_other
    return value


def product_value(node: Node) -> Tensor:
    """Return the product of two tensors."""
    value: Tensor = node._saved_self * node._saved_other
    return value


FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "Cos": torch.cos,
        "Erfc": torch.erfc,
        "Hardsigmoid": F.hardsigmoid,
        "Log": torch.log,
        "Log10": torch.log10,
        "Log2": torch.log2,
        "LogSigmoid": F.logsigmoid,
    }
)
"""Operations that keep their only operand."""
