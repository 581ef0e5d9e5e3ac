"""Quotients with a constant denominator (Cor 2); powers divided by their degree (Euler)."""

import pytest
import torch
from backward_cases import FEW, SEEDS, check, fullgrad_sum, leaves, scaled
from hypothesis import given
from hypothesis import strategies as st

from libragrad_lightning.backward import LIBRA, PLAIN, Role, grad

SIZES = st.integers(1, 4)


def away_from_zero(x):
    return (x.detach().abs() + 0.3).requires_grad_()


@FEW
@given(SEEDS, SIZES, SIZES)
def test_the_denominator_is_a_constant(seed, n, m):
    x, y, parameter = (away_from_zero(t) for t in leaves(seed, (n, m), (m,), (n, 1)))
    check(torch.div, lambda x, y: x / y.detach(), [x, y])
    check(lambda x: x / (x + parameter), lambda x: x / (x + parameter).detach(), [x])
    check(lambda x: x / parameter / 3, lambda x: x / parameter / 3, [x])


@pytest.mark.parametrize("numerator", ["parameter", "buffer", "number"])
def test_a_constant_over_a_live_value_is_a_constant(numerator):
    x, parameter = (away_from_zero(t) for t in leaves(0, (3, 4), (3, 4)))
    constant = {"parameter": parameter, "buffer": parameter.detach(), "number": 2.5}[numerator]
    (alone,) = grad((constant / x).sum(), x)
    assert torch.equal(alone, torch.zeros_like(x))
    check(lambda x: x * (constant / x), lambda x: x * (constant / x).detach(), [x])


EXPONENTS = [0.5, 1.0, 1.5, 2, 3, 7]


@pytest.mark.parametrize("exponent", EXPONENTS)
@FEW
@given(seed=SEEDS, n=SIZES)
def test_a_power_is_the_value_times_a_constant(exponent, seed, n):
    x = away_from_zero(leaves(seed, (n, 3))[0])

    def reference(x):
        return x * x.detach() ** (exponent - 1)

    check(lambda x: x**exponent, reference, [x])
    powers = torch.full((3,), float(exponent), dtype=torch.float64)
    check(lambda x: x**powers, reference, [x])


def test_a_power_of_a_negative_value():
    x = torch.tensor([-2.0, -0.5, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    check(lambda x: x**3, lambda x: x * x.detach() ** 2, [x])
    check(torch.square, lambda x: x * x.detach(), [x])


@FEW
@given(SEEDS, SIZES)
def test_roots_are_values_over_constants(seed, n):
    x = away_from_zero(leaves(seed, (n, 3))[0])
    check(torch.sqrt, lambda x: x / x.detach().sqrt(), [x])
    check(lambda x: (x * x).sqrt(), lambda x: scaled(x, 1.0), [x])


@pytest.mark.parametrize("exponent", [-3, -1.0, -0.5, 0])
def test_a_power_without_positive_degree_is_a_constant(exponent):
    x = away_from_zero(leaves(0, (3, 4))[0])
    powers = torch.full((4,), float(exponent), dtype=torch.float64)
    for power in (lambda x: x**exponent, lambda x: x**powers):
        check(power, lambda x: (x**exponent).detach(), [x])
        check(lambda x, p=power: x * p(x), lambda x: x * (x**exponent).detach(), [x])


def test_exponents_that_differ_by_element_are_complete_in_every_element():
    x = away_from_zero(leaves(0, (3, 4))[0])
    powers = torch.tensor([2, 0, -1, 0.5], dtype=torch.float64)
    check(lambda x: x**powers, lambda x: x * (x ** (powers - 1)).detach(), [x])
    check(
        lambda x: x * x**powers,
        lambda x: scaled(x * (x * (x ** (powers - 1)).detach()), 0.5),
        [x],
    )


@pytest.mark.parametrize("live", ["base", "exponent"])
def test_a_held_power_that_is_added_is_a_bias(live):
    x, other = (away_from_zero(t) for t in leaves(0, (3, 4), (4,)))
    power = x ** -other.detach() if live == "base" else other**x
    output = (x + power).sum()
    total, magnitude = fullgrad_sum(output, [x])
    assert abs(total - output).item() <= 1e-12 * magnitude.item()


def test_exponents_that_spread_the_base_over_rows():
    x = away_from_zero(leaves(0, (4,))[0])
    powers = torch.tensor([[1.0], [2.0], [0.5]], dtype=torch.float64)
    check(lambda x: x**powers, lambda x: x * x.detach() ** (powers - 1), [x])


@pytest.mark.parametrize("role", [Role.POWER, Role.QUOTIENT])
def test_without_the_rule_gradients_are_ordinary(role):
    x = away_from_zero(leaves(0, (3, 4))[0])
    value = (x**2 if role is Role.POWER else x / (x + 1)).sum()
    (expected,) = grad(value, x, rules=PLAIN, retain_graph=True)
    assert torch.equal(grad(value, x, rules=LIBRA.without(role))[0], expected)


@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.5, 2.0])
@pytest.mark.parametrize("kind", ["number", "buffer", "parameter"])
def test_a_power_of_a_held_value_that_is_added_is_complete(exponent, kind):
    (x,) = leaves(0, (3, 4))
    buffer = torch.tensor(exponent).double()
    powers = {"number": exponent, "buffer": buffer, "parameter": buffer.clone().requires_grad_()}
    output = (x + x.sigmoid() ** powers[kind]).square().sum()
    total, magnitude = fullgrad_sum(output, [x])
    assert abs(total - output.detach()) <= 1e-13 * magnitude
