"""The statements of the theory, with their counterexamples under ordinary gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, fullgrad_sum, leaves
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from libragrad_lightning.backward import LIBRA, PLAIN, Role, grad

N = st.integers(1, 5)


def affine_maps(seed, count):
    """Return affine maps from 3 to 4 features, with biases."""
    torch.manual_seed(seed)
    return [nn.Linear(3, 4).double() for _ in range(count)]


def assert_sum(output, x, rules, expected):
    total, magnitude = fullgrad_sum(output, [x], rules)
    assert abs(total - expected).item() <= 1e-12 * (1 + magnitude.item())


@FEW
@given(SEEDS, N)
def test_locally_affine_maps_and_sums_are_complete_under_any_gradient(seed, n):
    (x,) = leaves(seed, (n, 3))
    first, second = affine_maps(seed, 2)
    output = (F.relu(first(x)) + F.leaky_relu(second(x))).amax(-1).mean()
    for rules in (PLAIN, LIBRA):  # Thm 1, Thm 3, Cor 1
        assert_sum(output, x, rules, output)


@FEW
@given(SEEDS, N, st.integers(1, 5))
def test_a_product_of_n_maps_is_counted_n_times_and_once_when_shared(seed, n, count):
    (x,) = leaves(seed, (n, 3))
    output = math.prod(layer(x) for layer in affine_maps(seed, count)).sum()
    assert_sum(output, x, PLAIN, count * output)  # Prop 1
    assert_sum(output, x, LIBRA, output)  # Thm 4


@FEW
@given(SEEDS, N)
def test_a_matrix_product_is_counted_twice_and_once_when_shared(seed, n):
    (x,) = leaves(seed, (n, 3))
    first, second = affine_maps(seed, 2)
    output = (first(x) @ second(x).T).sum()
    assert_sum(output, x, PLAIN, 2 * output)
    assert_sum(output, x, LIBRA, output)


@FEW
@given(SEEDS, N)
def test_a_quotient_is_counted_zero_times_and_once_when_held(seed, n):
    (x,) = leaves(seed, (n, 3))
    first, second = affine_maps(seed, 2)
    output = (first(x) / second(x)).sum()
    total, magnitude = fullgrad_sum(output, [x], PLAIN)
    assert abs(total) <= 1e-11 * magnitude  # Prop 2
    assert_sum(output, x, LIBRA, output)  # Cor 2


@FEW
@given(SEEDS, N, st.sampled_from([0.5, 2, 3, 4.5]))
def test_a_homogeneous_function_is_counted_as_often_as_its_degree(seed, n, degree):
    (x,) = leaves(seed, (n, 3))
    (layer,) = affine_maps(seed, 1)
    output = (layer(x).abs() ** degree).sum()
    assert_sum(output, x, PLAIN, degree * output)
    assert_sum(output, x, LIBRA, output)


@FEW
@given(SEEDS, N)
def test_layer_norm_vanishes_with_eps_under_ordinary_gradients(seed, n):
    """Prop 3, with its rate: J x = LN(x) * eps / (var + eps)."""
    x, direction = leaves(seed, (n, 4), (n, 4))
    x.data[:, 0] += 3  # no row is nearly constant
    for eps in (1.0, 1e-3, 1e-6, 1e-12):
        value = F.layer_norm(x, (4,), eps=eps)
        (gradient,) = grad(value, x, direction, rules=PLAIN)
        variance = x.detach().var(-1, correction=0, keepdim=True)
        expected = (direction * value * eps / (variance + eps)).sum()
        torch.testing.assert_close((x * gradient).sum(), expected, rtol=1e-9, atol=1e-12)
        (held,) = grad(F.layer_norm(x, (4,), eps=eps), x, direction)
        torch.testing.assert_close((x * held).sum(), (direction * value).sum())


@pytest.mark.parametrize("phi", [F.gelu, F.silu, F.mish, F.hardswish, torch.tanh, F.elu])
def test_gated_activations_are_complete_only_with_a_constant_gate(phi):
    (x,) = leaves(0, (3, 4))
    output = phi(x).sum()
    assert_sum(output, x, LIBRA, output)  # Thm 5
    total, _ = fullgrad_sum(output, [x], PLAIN)
    assert abs(total - output) > 1e-3  # Prop 4


@FEW
@given(SEEDS, N)
def test_attention_is_complete_only_with_constant_weights(seed, n):
    x, weight = leaves(seed, (1, n + 1, 3), (9, 3))
    q, k, v = (x @ weight.T).reshape(1, n + 1, 3, 1, 3).permute(2, 0, 3, 1, 4)
    output = F.scaled_dot_product_attention(q, k, v).sum()
    assert_sum(output, x, LIBRA, output)
    total, _ = fullgrad_sum(output, [x], PLAIN)
    assert abs(total - output) > 1e-9


def test_every_factor_may_be_held_as_long_as_one_is_live():
    """Thm 5 for a product of arbitrary functions, one of them complete."""
    (x,) = leaves(0, (3, 4))
    output = (torch.cos(x.flip(0)) * x * torch.exp(x.flip(1))).sum()
    assert_sum(output, x, LIBRA, output)
    total, _ = fullgrad_sum(output, [x], LIBRA.without(Role.GATE))
    assert abs(total - output) > 1e-3
