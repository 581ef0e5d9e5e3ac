"""Gated activations phi(x) = x * g(x): their gates, and the identity rule.

An activation is no complete map (Prop 4). It is one when g(x) is held constant in the backward pass
(Thm 5): the gradient of the output is scaled by g(x), and passed on as by an identity. Where phi
has no gate of its own, g is the quotient phi(x) / x with its limit at zero. The gates are read
from what autograd saved of the forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.backward.graph import (
    ConstantOf,
    Correction,
    Elementwise,
    Flow,
    Node,
    Operation,
    Role,
    wrapped_axis,
)
from libragrad_lightning.backward.rules.rule import gradient_of


@dataclass(frozen=True)
class Activation(Operation):
    """An activation x * g(x) of one live operand.

    An operation of one's own needs an entry in the vocabulary of a rule set, under the name that
    autograd gives to its node; what its `forward` kept is read from the node:

        >>> import torch
        >>> from dataclasses import replace
        >>> from libragrad_lightning.backward import LIBRA, VOCABULARY, Activation, grad
        >>> class Swish(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x * x.sigmoid()
        ...     @staticmethod
        ...     def backward(ctx, gradient):
        ...         x, = ctx.saved_tensors
        ...         s = x.sigmoid()
        ...         return gradient * s * (1 + x * (1 - s))
        >>> swish = Activation(lambda node: node.saved_tensors[0].sigmoid())
        >>> rules = replace(LIBRA, vocabulary=VOCABULARY.extended({"SwishBackward": swish}))
        >>> x = torch.tensor([-1.0, 2.0], requires_grad=True)
        >>> y = Swish.apply(x)
        >>> gradient, = grad(y.sum(), x, rules=rules)
        >>> torch.allclose(x * gradient, y)
        True

    Attributes:
        gate: g(x) = phi(x) / x, in the dtype of the node.
        owns_gate: Whether `gate` makes a new tensor at every call, which may be overwritten.
    """

    role: ClassVar[Role] = Role.ACTIVATION

    gate: Callable[[Node], Tensor]
    elementwise: Elementwise | None = field(default=Elementwise.CURVED, kw_only=True)
    owns_gate: bool = field(default=False, kw_only=True)

    def input_gradient(self, node: Node, gradient: Tensor) -> Tensor:
        """Return dF/dx with a constant gate, from the gradient of the output."""
        gate = self.gate(node)
        alike = gate.shape == gradient.shape and gate.dtype == gradient.dtype
        # A new tensor of this size costs more than the product.
        return gate.mul_(gradient) if self.owns_gate and alike else gradient * gate


@dataclass(frozen=True)
class GatedUnit(Operation):
    """An activation whose input and output differ in shape, such as a gated linear unit.

    Attributes:
        gated_gradient: dF/dx with a constant gate, from the node and the gradient of its output.
    """

    role: ClassVar[Role] = Role.ACTIVATION

    gated_gradient: Callable[[Node, Tensor], Tensor]

    def input_gradient(self, node: Node, gradient: Tensor) -> Tensor:
        """Return dF/dx with a constant gate, from the gradient of the output."""
        return self.gated_gradient(node, gradient)


@dataclass(frozen=True)
class EagerActivation(Operation):
    """One of several nodes that compute an activation together.

    Attributes:
        live: The edges that stay live: those of x, at the product of x and the gate; none, at a
            part of the gate.
    """

    role: ClassVar[Role] = Role.ACTIVATION

    live: tuple[int, ...]

    @property
    def factor_edges(self) -> tuple[int, ...]:
        """The edges that stay live."""
        return self.live


def identity_rule(
    operation: Activation | GatedUnit | EagerActivation, node: Node, flows: Sequence[Flow]
) -> Correction:
    """Scale the gradient of x * g(x) by the constant g(x) (Thm 5).

    The product of an eager activation does so itself if the gate gets no gradient.
    """
    if isinstance(operation, EagerActivation):
        return gradient_of(operation.live, flows)

    def rewrite(node: Node, ordinary: Tensor, outgoing: Tensor) -> Tensor:
        return operation.input_gradient(node, outgoing)

    live = flows.index(Flow.LIVE) if Flow.LIVE in flows else 0
    return Correction((1.0,) * len(flows), rewrite, live)


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
    """Return relu6(x + 3) / 6, with the sixth that torch's own kernel has.

    On CUDA that is a float32, 3e-8 off, in float64 too.
    """
    x: Tensor = node._saved_self
    wide = torch.promote_types(x.dtype, torch.float32)
    sixth = F.hardswish(torch.full((), 6.0, dtype=wide, device=x.device)) / 36
    return F.relu6(x + 3) * sixth


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
        y = scale * _elu(x, alpha, input_scale)
    else:  # computed in place: x is the inverse of the result
        y = node._saved_result
        x = torch.where(y > 0, y / scale, _inverse_expm1(y / (scale * alpha)) / input_scale)
    return _quotient(y, x, scale * alpha * input_scale)


def _elu(x: Tensor, alpha: float, input_scale: float) -> Tensor:
    """Return ELU, near zero with the digits that some releases of torch lose by exp(x) - 1."""
    return torch.where(x > 0, x, alpha * torch.expm1(x * input_scale))


def celu_gate(node: Node) -> Tensor:
    """Return celu(x) / x."""
    alpha = node._saved_alpha
    if hasattr(node, "_saved_self"):
        x: Tensor = node._saved_self
        return _quotient(_elu(x, alpha, 1 / alpha), x, 1.0)
    y: Tensor = node._saved_result
    return _quotient(y, torch.where(y > 0, y, _inverse_expm1(y / alpha) * alpha), 1.0)


def _inverse_expm1(y: Tensor) -> Tensor:
    """Return log(1 + y), with the largest x that the dtype can tell apart for y = -1."""
    return torch.log1p(y.clamp(min=torch.finfo(y.dtype).eps / 2 - 1))


def glu_gradient(node: Node, gradient: Tensor) -> Tensor:
    """Return dF/dx of a * sigmoid(b), x = cat(a, b), with a constant gate sigmoid(b)."""
    dim = wrapped_axis(node._saved_dim)
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
