"""Activations x * g(x): the gradient is the constant gate g(x) = phi(x) / x (Thm 5)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, check, leaves
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from libragrad_lightning.backward import LIBRA, PLAIN, Role, grad


@dataclass(frozen=True)
class Activation:
    phi: Callable[[Tensor], Tensor]
    slope_at_zero: float
    far: float = 60.0  # beyond it the gate cannot be told from what autograd saved
    exact: Callable[[Tensor], Tensor] | None = None  # phi, where torch loses digits of it


def elu(alpha=1.0, scale=1.0, width=1.0):
    """ELU and its kin as they are defined; before torch 2.9, theirs are exp(x) - 1 near zero."""
    return lambda x: scale * torch.where(x > 0, x, alpha * torch.expm1(x / width))


SELU = (1.0507009873554805, 1.6732632423543772)
EXACT_SELU = elu(alpha=SELU[1], scale=SELU[0])


def hardswish_gate(x):
    return min(max(x + 3, 0), 6) / 6


ACTIVATIONS = {
    "gelu": Activation(F.gelu, 0.5),
    "gelu_tanh": Activation(lambda x: F.gelu(x, approximate="tanh"), 0.5),
    "silu": Activation(F.silu, 0.5),
    "hardswish": Activation(F.hardswish, 0.5),
    "mish": Activation(F.mish, math.tanh(math.log(2))),
    "elu": Activation(F.elu, 1.0, exact=elu()),
    "elu_alpha": Activation(lambda x: F.elu(x, alpha=0.3), 0.3, exact=elu(0.3)),
    "selu": Activation(F.selu, math.prod(SELU), exact=EXACT_SELU),
    "celu": Activation(lambda x: F.celu(x, alpha=1.7), 1.0, exact=elu(1.7, width=1.7)),
    "tanh": Activation(torch.tanh, 1.0, far=7.0),
    "erf": Activation(torch.erf, 2 / math.sqrt(math.pi)),
    "atan": Activation(torch.atan, 1.0),
    "asinh": Activation(torch.asinh, 1.0),
    "sinh": Activation(torch.sinh, 1.0),
    "sin": Activation(torch.sin, 1.0),
    "expm1": Activation(torch.expm1, 1.0, far=7.0),
    "log1p": Activation(lambda x: torch.log1p(x.abs()), 0.0),
    "softshrink": Activation(lambda x: F.softshrink(x, 0.7), 0.0),
    "tanhshrink": Activation(F.tanhshrink, 0.0, far=7.0),
    "hardtanh": Activation(F.hardtanh, 1.0),
    "hardtanh_bounds": Activation(lambda x: F.hardtanh(x, -0.5, 2.0), 1.0),
    "relu6": Activation(F.relu6, 1.0),
    "clamp": Activation(lambda x: x.clamp(-1.5, 0.5), 1.0),
    "clamp_min": Activation(lambda x: torch.clamp_min(x, -0.25), 1.0),
    "clamp_upper": Activation(lambda x: x.clamp(max=2.0), 1.0),
    "silu_in_place": Activation(lambda x: F.silu(x.clone(), inplace=True), 0.5),
    "hardswish_in_place": Activation(lambda x: F.hardswish(x.clone(), inplace=True), 0.5),
    "mish_in_place": Activation(lambda x: F.mish(x.clone(), inplace=True), math.tanh(math.log(2))),
    "tanh_in_place": Activation(lambda x: x.clone().tanh_(), 1.0, far=7.0),
    "relu6_in_place": Activation(lambda x: F.relu6(x.clone(), inplace=True), 1.0),
    "hardtanh_in_place": Activation(lambda x: F.hardtanh(x.clone(), inplace=True), 1.0),
    "clamp_in_place": Activation(lambda x: x.clone().clamp_(-1.5, 0.5), 1.0),
    "elu_in_place": Activation(
        lambda x: F.elu(x.clone(), 0.3, inplace=True), 0.3, far=7.0, exact=elu(0.3)
    ),
    "selu_in_place": Activation(
        lambda x: F.selu(x.clone(), inplace=True), math.prod(SELU), far=7.0, exact=EXACT_SELU
    ),
    "celu_in_place": Activation(
        lambda x: F.celu(x.clone(), 1.7, inplace=True), 1.0, far=7.0, exact=elu(1.7, width=1.7)
    ),
}

# Zeros, kinks, values where expm1 and erf lose digits if written carelessly, and saturation.
EDGES = [0.0, -0.0, 1e-300, -1e-300, 1e-9, -1e-9, 0.5, 1, -1, -1.5, 2, 3, -3, 6, -6]
FAR = [20.0, -20.0, 60.0, -60.0]


def by_quotient(activation):
    """phi(x) as x times a constant; at zero the constant is the slope of phi."""

    def reference(x):
        zero = x == 0
        quotient = (activation.exact or activation.phi)(x.detach()) / x.detach().masked_fill(
            zero, 1
        )
        return x * torch.where(zero, activation.slope_at_zero, quotient)

    return reference


@pytest.mark.parametrize("name", ACTIVATIONS)
@FEW
@given(seed=SEEDS, rows=st.integers(1, 5))
def test_the_gate_is_held(name, seed, rows):
    activation = ACTIVATIONS[name]
    (x,) = leaves(seed, (rows, 4))
    x = (3 * x).clamp(-activation.far, activation.far).detach().requires_grad_()
    check(activation.phi, by_quotient(activation), [x], rtol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_zero_tiny_kinks_and_saturated_inputs(name):
    activation = ACTIVATIONS[name]
    values = [v for v in EDGES + FAR if abs(v) <= activation.far]
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    check(activation.phi, by_quotient(activation), [x], rtol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_differs_from_plain_backpropagation(name):
    x = torch.linspace(-5, 5, 21, dtype=torch.float64, requires_grad=True)
    value = ACTIVATIONS[name].phi(x).sum()
    (libra,) = grad(value, x, retain_graph=True)
    (plain,) = grad(value, x, rules=PLAIN, retain_graph=True)
    (ablated,) = grad(value, x, rules=LIBRA.without(Role.ACTIVATION))
    assert not torch.allclose(libra, plain)
    assert torch.equal(ablated, plain)


# Values of the gates from the mathematics of the scalars alone.
CLOSED_FORMS = {
    "gelu": lambda x: 0.5 * math.erfc(-x / math.sqrt(2)),
    "gelu_tanh": lambda x: 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: 1 / (1 + math.exp(-x)),
    "hardswish": hardswish_gate,
    "mish": lambda x: math.tanh(math.log1p(math.exp(x))),
    "elu": lambda x: 1.0 if x > 0 else math.expm1(x) / x,
    "celu": lambda x: 1.0 if x > 0 else 1.7 * math.expm1(x / 1.7) / x,
    "tanh": lambda x: math.tanh(x) / x,
    "erf": lambda x: math.erf(x) / x,
    "atan": lambda x: math.atan(x) / x,
    "asinh": lambda x: math.asinh(x) / x,
    "sinh": lambda x: math.sinh(x) / x,
    "sin": lambda x: math.sin(x) / x,
    "expm1": lambda x: math.expm1(x) / x,
    "log1p": lambda x: math.log1p(abs(x)) / x,
    "softshrink": lambda x: max(abs(x) - 0.7, 0) / abs(x),
    "relu6": lambda x: min(max(x, 0), 6) / x,
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
@FEW
@given(number=st.floats(-7, 7).filter(lambda v: abs(v) > 1e-3))
def test_gates_in_closed_form(name, number):
    x = torch.tensor(number, dtype=torch.float64, requires_grad=True)
    (gate,) = grad(ACTIVATIONS[name].phi(x), x)
    assert gate.item() == pytest.approx(CLOSED_FORMS[name](number), rel=1e-8, abs=1e-14)


def test_saturated_tanh_stays_finite_and_small():
    x = torch.tensor([40.0, -40.0, 1e6, -1e6], dtype=torch.float64, requires_grad=True)
    (gate,) = grad(torch.tanh(x).sum(), x)
    assert torch.all((gate > 0) & (gate < 0.06))


def test_saturated_elu_in_place_stays_finite_and_small():
    x = torch.tensor([-40.0, -1e6], dtype=torch.float64, requires_grad=True)
    for activation in (F.elu, F.selu, F.celu):
        (gate,) = grad(activation(x.clone(), inplace=True).sum(), x)
        assert torch.all((gate > 0) & (gate < 0.06))


@FEW
@given(seed=SEEDS, n=st.integers(1, 3), dim=st.sampled_from([0, 1, 2, -1, -2]))
def test_the_gate_of_glu_is_held(seed, n, dim):
    (x,) = leaves(seed, (2, 2 * n, 4))

    def held(x):
        value, gate = x.chunk(2, dim)
        return value * torch.sigmoid(gate).detach()

    check(lambda x: F.glu(x, dim), held, [x])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_have_the_dtype_of_the_input(name, dtype):
    x = torch.linspace(-3, 3, 9).to(dtype).requires_grad_()
    (gradient,) = grad(ACTIVATIONS[name].phi(x).sum(), x)
    assert gradient.dtype == dtype
    exact = x.detach().double().requires_grad_()
    (expected,) = grad(ACTIVATIONS[name].phi(exact).sum(), exact)
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(gradient.double(), expected, rtol=tolerance, atol=tolerance)
