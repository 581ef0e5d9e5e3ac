"""The gates phi(x) / x of the activations, read from what autograd saved of the forward pass.

An activation phi(x) = x * g(x) is FullGrad-complete when g(x) is held constant in the backward pass
(Thm 5). Where phi has no written-out gate, g is the quotient phi(x) / x with its limit at zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.backward.operations import ConstantOf, Node


def gelu_gate(node: Node) -> Tensor:
    """Return Phi(x), or its tanh approximation, as the forward pass used it."""
    x: Tensor = node._saved_self.detach()
    if node._saved_approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return inner.tanh_().add_(1).mul_(0.5)
    # In place: an erf and three passes over memory are most of what this rule costs.
    return (x * math.sqrt(0.5)).erf_().add_(1).mul_(0.5)


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
    """Return clamp(x) / x for hardtanh, relu6 and clamp.

    Bounds that exclude zero leave no limit of the quotient at zero: such a clamp is an affine
    function with the constant `clamp_offset`.
    """
    x: Tensor = node._saved_self
    low, high = _clamp_bounds(node)
    if low <= 0 <= high:
        return _quotient(torch.clamp(x, low, high), x, 1.0)
    return ((x >= low) & (x <= high)).to(x.dtype)


def clamp_offset(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """Return what a clamp adds where it holds x back by bounds that exclude zero."""
    x: Tensor = node._saved_self
    low, high = _clamp_bounds(node)
    if low <= 0 <= high:
        return None
    clamped = torch.clamp(x, low, high)
    return clamped.masked_fill(clamped == x, 0)


def bounds_offset(node: Node, constant_of: ConstantOf) -> Tensor:
    """Return the bounds, where they hold x back, of a clamp whose bounds are constant tensors.

    A clamp selects one of its three operands, so it is linear in them.
    """
    x: Tensor = node._saved_self
    total = torch.zeros_like(x)
    for edge, (name, beyond) in enumerate((("min", torch.lt), ("max", torch.gt)), start=1):
        bound: Tensor | None = getattr(node, f"_saved_{name}", None)
        if bound is not None and _is_constant_edge(node, min(edge, _last(node)), constant_of):
            total = torch.where(beyond(x, bound), bound, total)
    return total


def extremum_offset(node: Node, constant_of: ConstantOf) -> Tensor:
    """Return the constant operand of `torch.maximum` or `minimum` where it is chosen.

    Autograd counts equal operands by half each.
    """
    x, other = node._saved_self, node._saved_other
    chosen = torch.gt if node.name().startswith("Maximum") else torch.lt
    total = torch.zeros_like(torch.maximum(x, other))
    for edge, (own, against) in enumerate(((x, other), (other, x))):
        if _is_constant_edge(node, edge, constant_of):
            share = chosen(own, against).to(total.dtype) + 0.5 * (own == against)
            total = total + (own * share).masked_fill(share == 0, 0)
    return total.detach()


def _is_constant_edge(node: Node, edge: int, constant_of: ConstantOf) -> bool:
    return node.next_functions[edge][0] is None or constant_of(edge) is not None


def _last(node: Node) -> int:
    return len(node.next_functions) - 1


def _clamp_bounds(node: Node) -> tuple[float, float]:
    if hasattr(node, "_saved_min_val"):
        return node._saved_min_val, node._saved_max_val
    low, high = getattr(node, "_saved_min", None), getattr(node, "_saved_max", None)
    return -math.inf if low is None else low, math.inf if high is None else high


def elu_gate(node: Node) -> Tensor:
    """Return elu(x) / x, also for selu, which is recorded as elu."""
    alpha, scale, input_scale = node._saved_alpha, node._saved_scale, node._saved_input_scale
    if hasattr(node, "_saved_self"):
        x: Tensor = node._saved_self
        y = scale * torch.where(x > 0, x, alpha * torch.expm1(x * input_scale))
    else:  # computed in place: x is the inverse of the result
        y = node._saved_result
        x = torch.where(y > 0, y / scale, _inverse_expm1(y / (scale * alpha)) / input_scale)
    return _quotient(y, x, scale * alpha * input_scale)


def celu_gate(node: Node) -> Tensor:
    """Return celu(x) / x."""
    alpha = node._saved_alpha
    if hasattr(node, "_saved_self"):
        x: Tensor = node._saved_self
        return _quotient(F.celu(x, alpha), x, 1.0)
    y: Tensor = node._saved_result
    return _quotient(y, torch.where(y > 0, y, _inverse_expm1(y / alpha) * alpha), 1.0)


def _inverse_expm1(y: Tensor) -> Tensor:
    """Return log(1 + y), with the largest x that the dtype can tell apart for y = -1."""
    return torch.log1p(y.clamp(min=torch.finfo(y.dtype).eps / 2 - 1))


def glu_gradient(node: Node, gradient: Tensor) -> Tensor:
    """Return dF/dx of a * sigmoid(b), x = cat(a, b), with a constant gate sigmoid(b)."""
    dim = _saved_axis(node)
    _, gate = node._saved_self.chunk(2, dim)
    return torch.cat([gradient * torch.sigmoid(gate), torch.zeros_like(gradient)], dim)


def tanh_gate(node: Node) -> Tensor:
    """Return tanh(x) / x; autograd keeps tanh(x) only, so x is its inverse.

    Where tanh(x) rounds to 1 the inverse is infinite; the largest x that the dtype can tell apart
    stands in for it.
    """
    result: Tensor = node._saved_result
    limit = 1 - torch.finfo(result.dtype).eps / 2
    return _quotient(result, torch.atanh(result.clamp(-limit, limit)), 1.0)


@dataclass(frozen=True)
class Ratio:
    """The gate phi(x) / x of a function with phi(0) = 0 that keeps its operand.

    A class and not a closure, so that vocabularies can be pickled.
    """

    function: Callable[[Tensor], Tensor]
    slope_at_zero: float = 1.0

    def __call__(self, node: Node) -> Tensor:
        """Return the gate."""
        x: Tensor = node._saved_self
        return _quotient(self.function(x), x, self.slope_at_zero)


RATIOS: Mapping[str, Ratio] = MappingProxyType(
    {
        "Asinh": Ratio(torch.asinh),
        "Atan": Ratio(torch.atan),
        "Erf": Ratio(torch.erf, 2 / math.sqrt(math.pi)),
        "Log1P": Ratio(torch.log1p),
        "Sin": Ratio(torch.sin),
        "Sinh": Ratio(torch.sinh),
    }
)
"""Operations that keep their only operand."""


def expm1_gate(node: Node) -> Tensor:
    """Return (exp(x) - 1) / x; autograd keeps the result only, so x is its inverse."""
    result: Tensor = node._saved_result
    return _quotient(result, _inverse_expm1(result), 1.0)


def softshrink_gate(node: Node) -> Tensor:
    """Return softshrink(x) / x."""
    x: Tensor = node._saved_self
    return _quotient(F.softshrink(x, node._saved_lambd), x, float(node._saved_lambd == 0))


def _quotient(numerator: Tensor, denominator: Tensor, at_zero: float) -> Tensor:
    zero = denominator == 0
    return torch.where(zero, at_zero, numerator / denominator.masked_fill(zero, 1))


def exponent(node: Node) -> float:
    """Return the exponent of a power."""
    return float(node._saved_exponent)


def exponents(node: Node) -> Tensor:
    """Return the exponents of a power whose exponent is a tensor."""
    return node._saved_exponent


def number_of_factors(node: Node) -> float:
    """Return how many elements a product over one or all axes multiplies."""
    shape = node._saved_self.shape
    return float(shape[_saved_axis(node)] if hasattr(node, "_saved_dim") else shape.numel())


def _saved_axis(node: Node) -> int:
    return wrapped_axis(node._saved_dim)


def wrapped_axis(axis: int) -> int:
    """Return a saved axis; autograd hands out -1 as an unsigned number."""
    return axis - 2**64 if axis >= 2**63 else axis


def square_root_exponent(node: Node) -> float:
    """Return the degree of a square root."""
    return 0.5
