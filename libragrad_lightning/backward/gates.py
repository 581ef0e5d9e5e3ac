"""The gates phi(x) / x of the activations, read from what autograd saved of the forward pass.

An activation phi(x) = x * g(x) is FullGrad-complete when g(x) is held constant in the backward pass
(Thm 5). Where phi has no written-out gate, g is the quotient phi(x) / x with its limit at zero.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.backward.operations import Node


def gelu_gate(node: Node) -> Tensor:
    """Return Phi(x), or its tanh approximation, as the forward pass used it."""
    x: Tensor = node._saved_self
    if node._saved_approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * (1 + torch.tanh(inner))
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def silu_gate(node: Node) -> Tensor:
    """Return sigmoid(x)."""
    return torch.sigmoid(node._saved_self)


def hardswish_gate(node: Node) -> Tensor:
    """Return relu6(x + 3) / 6."""
    return F.relu6(node._saved_self + 3) / 6


def mish_gate(node: Node) -> Tensor:
    """Return tanh(softplus(x))."""
    return torch.tanh(F.softplus(node._saved_self))


def clamp_gate(node: Node) -> Tensor:
    """Return clamp(x) / x for hardtanh, relu6 and clamp."""
    x: Tensor = node._saved_self
    low, high = _clamp_bounds(node)
    at_zero = 1.0 if (low is None or low <= 0) and (high is None or high >= 0) else 0.0
    return _quotient(torch.clamp(x, low, high), x, at_zero)


def _clamp_bounds(node: Node) -> tuple[float | None, float | None]:
    if hasattr(node, "_saved_min_val"):
        return node._saved_min_val, node._saved_max_val
    return getattr(node, "_saved_min", None), getattr(node, "_saved_max", None)


def elu_gate(node: Node) -> Tensor:
    """Return elu(x) / x, also for selu, which is recorded as elu."""
    x: Tensor = node._saved_self
    alpha, scale, input_scale = node._saved_alpha, node._saved_scale, node._saved_input_scale
    y = scale * torch.where(x > 0, x, alpha * torch.expm1(x * input_scale))
    return _quotient(y, x, scale * alpha * input_scale)


def celu_gate(node: Node) -> Tensor:
    """Return celu(x) / x."""
    x: Tensor = node._saved_self
    return _quotient(F.celu(x, node._saved_alpha), x, 1.0)


def tanh_gate(node: Node) -> Tensor:
    """Return tanh(x) / x; autograd keeps tanh(x) only, so x is its inverse.

    Where tanh(x) rounds to 1 the inverse is infinite; the largest x that the dtype can tell apart
    stands in for it.
    """
    result: Tensor = node._saved_result
    limit = 1 - torch.finfo(result.dtype).eps / 2
    return _quotient(result, torch.atanh(result.clamp(-limit, limit)), 1.0)


def _quotient(numerator: Tensor, denominator: Tensor, at_zero: float) -> Tensor:
    zero = denominator == 0
    return torch.where(zero, at_zero, numerator / denominator.masked_fill(zero, 1))


def exponent(node: Node) -> float:
    """Return the exponent of a power."""
    return float(node._saved_exponent)
