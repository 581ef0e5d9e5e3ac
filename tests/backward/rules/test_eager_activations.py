"""The same function, the same map: eager activations are what the kernels are."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, BiasRecord, check, fullgrad_sum, leaves, scaled
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from twin_cases import HOMOGENEOUS, RATE, TWINS, gelu_tanh, softplus_of

from libragrad_lightning.backward import LIBRA, PLAIN, RULE_SETS, ConstantObserver, Role, grad
from libragrad_lightning.backward.graph import annotate_graph
from libragrad_lightning.backward.rules import EagerActivation

RULES = [
    *RULE_SETS.values(),
    LIBRA.without(Role.ACTIVATION),
    LIBRA.without(Role.GATE),
    LIBRA.without(Role.ACTIVATION, Role.GATE, Role.POWER),
    LIBRA.without(Role.PRODUCT, Role.QUOTIENT),
]


def network(phi, x, weights):
    """Two layers of an activation, with another one before it."""
    first, bias, second = weights
    hidden = phi(F.linear(x, first, bias))
    return F.linear(phi(hidden + F.silu(x) @ second), second, bias).square().sum()


@pytest.mark.parametrize("rules", RULES, ids=repr)
@pytest.mark.parametrize("name", TWINS)
def test_twins_have_the_same_gradients_and_biases(name, rules):
    if name in HOMOGENEOUS and Role.PRODUCT not in rules.rules and rules.rules:
        pytest.skip("Euler's rule is on while that for products is off")
    if name in HOMOGENEOUS and Role.POWER not in rules.rules and rules.rules:
        pytest.skip("Euler's rule is off while that for products is on")
    x, *weights = leaves(0, (3, 4), (4, 4), (4,), (4, 4))
    found = []
    for phi in TWINS[name]:
        output = network(phi, x, weights)
        record = BiasRecord()
        found += [[*grad(output, x, rules=rules, on_bias=record), record.total()]]
    if rules.rules and Role.ACTIVATION in rules.rules:
        torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)
    else:  # ordinary gradients reach the constants inside, which are biases then
        # The gradient that PyTorch has for hardsigmoid knows 1 / 6 in single precision.
        rtol = 1e-6 if name == "hardswish_hardsigmoid" else 1e-10
        torch.testing.assert_close(found[0][0], found[1][0], rtol=rtol, atol=1e-12)


# Autograd keeps tanh(x) alone: where it is 1 up to rounding, x is found again to a few digits.
@pytest.mark.parametrize("name", sorted(set(TWINS) - {"tanhshrink"}))
@FEW
@given(seed=SEEDS)
def test_twins_are_complete_without_their_inner_constants(name, seed):
    x, *weights = leaves(seed, (3, 4), (4, 4), (4,), (4, 4))
    with ConstantObserver():
        output = network(TWINS[name][0], x, weights)
    total, magnitude = fullgrad_sum(output, [x])
    assert abs(total - output.detach()) <= 1e-13 * magnitude


@pytest.mark.parametrize("name", sorted(set(TWINS) - HOMOGENEOUS))
def test_the_rule_changes_what_backpropagation_gives(name):
    x = torch.linspace(-4, 4, 18, dtype=torch.float64, requires_grad=True)
    value = TWINS[name][0](x).sum()
    (libra,) = grad(value, x, retain_graph=True)
    (plain,) = grad(value, x, rules=PLAIN, retain_graph=True)
    assert torch.allclose(libra, plain) == (name == "leaky_relu")
    assert torch.equal(plain, torch.autograd.grad(value, x)[0])


ORDERS = [
    lambda a, b, g: (a * b) * g,
    lambda a, b, g: g * (b * a),
    lambda a, b, g: a * (b * g),
    lambda a, b, g: (g * a) * b,
    lambda a, b, g: a * g * b * 2 / 2,
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("rules", [PLAIN, LIBRA, LIBRA.without(Role.GATE, Role.POWER)], ids=repr)
def test_the_order_of_the_factors_of_a_gated_unit_does_not_matter(order, rules):
    """GEGLU, u * gelu(v), multiplied out."""
    x, up, side = leaves(0, (3, 4), (5, 4), (5, 4))

    def gate(v):
        return 0.5 * (1 + torch.tanh(RATE * (v + 0.044715 * v**3)))

    gradients = []
    for multiplied in (lambda u, v: order(u, v, gate(v)), lambda u, v: u * gelu_tanh(v)):
        value = multiplied(x @ up.T, x @ side.T)
        gradients += grad(value.square().sum(), x, rules=rules)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_two_activations_that_are_multiplied_out_share():
    x, up, side = leaves(0, (3, 4), (5, 4), (5, 4))

    def mixed(x):
        u, v = x @ up.T, x @ side.T
        return (u * v) * (F.relu6(u + 3) * F.relu6(v + 3)) / 36

    check(
        mixed,
        lambda x: scaled(
            (x @ up.T)
            * (x @ side.T)
            * (F.hardsigmoid(x @ up.T) * F.hardsigmoid(x @ side.T)).detach(),
            0.5,
        ),
        [x],
    )


def shared(a, b):
    return scaled(a * b, 0.5)


# Products of two branches, which stay products; the reference says what is shared.
PRODUCTS = {
    "swiglu": (
        lambda x, w: F.silu(x @ w) * (x @ w.T),
        lambda x, w: shared((x @ w) * (x @ w).sigmoid().detach(), x @ w.T),
    ),
    "gate_of_another_map": (
        lambda x, w: x * F.relu6(x @ w),
        lambda x, w: shared(x, (x @ w) * (F.relu6(x @ w) / (x @ w)).detach()),
    ),
    "gate_of_the_mean": (
        lambda x, w: x * F.relu6(x.mean(-1, keepdim=True)),
        lambda x, w: shared(
            x,
            (m := x.mean(-1, keepdim=True)) * (F.relu6(m) / m).detach(),
        ),
    ),
    "gate_of_another_element": (
        lambda x, w: x[:, :, None] * (x[:, None] + 1),
        lambda x, w: shared(x[:, :, None], x[:, None] + 1),
    ),
    "gate_of_a_neighbor": (
        lambda x, w: x * torch.tanh(x.roll(1, -1)),
        lambda x, w: shared(
            x, (r := x.roll(1, -1)) * (torch.tanh(r) / r.masked_fill(r == 0, 1)).detach()
        ),
    ),
    "value_over_a_square": (
        lambda x, w: torch.tanh(x + 1) * x**-2,
        lambda x, w: (x + 1) * (torch.tanh(x + 1) / (x + 1) * x**-2).detach(),
    ),
    "power_of_two": (
        lambda x, w: torch.relu(x + 1) * 2**x,
        lambda x, w: torch.relu(x + 1) * (2**x).detach(),
    ),
    "two_shifts": (
        lambda x, w: (x + 1) * (x - 2),
        lambda x, w: shared(x + 1, x - 2),
    ),
    "gate_of_a_sum": (
        lambda x, w: x * torch.tanh(x + x @ w),
        lambda x, w: shared(x, (s := x + x @ w) * (torch.tanh(s) / s).detach()),
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
@FEW
@given(seed=SEEDS)
def test_products_of_two_branches_stay_products(name, seed):
    x, weight = leaves(seed, (3, 4), (4, 4))
    forward, reference = PRODUCTS[name]
    check(lambda x: forward(x, weight), lambda x: reference(x, weight), [x], rtol=1e-9)
    value = forward(x, weight).sum()
    assert not any(
        isinstance(a.operation, EagerActivation) for a in annotate_graph([value], [x], LIBRA).nodes
    )


@pytest.mark.parametrize("hooked", [[0], [1], [0, 1]])
def test_hooks_on_the_modules_of_the_factors_change_nothing(hooked):
    """A module with a full backward hook records what enters and leaves it."""
    (x,) = leaves(0, (3, 4))
    value, gate = modules = [nn.LeakyReLU(1.0), nn.Hardtanh(0, 6)]
    for number in hooked:
        modules[number].register_full_backward_hook(lambda module, received, handed: None)
    check(lambda x: value(x) * gate(x + 3) / 6, lambda x: x * F.hardsigmoid(x).detach(), [x])


def test_long_chains_of_products():
    x, w = leaves(0, (3, 4), (4, 4))
    value = x @ w
    for _ in range(1500):
        value = value * (1 + 1e-4 * (x @ w))
    (gradient,) = grad(value.sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("form", [softplus_of, lambda x: torch.log1p(torch.exp(x))])
@pytest.mark.parametrize("rules", RULE_SETS.values(), ids=repr)
def test_softplus_is_a_gate_however_it_is_written(form, rules):
    x, w = leaves(0, (3, 4), (4, 4))
    for use in (lambda y: x + y @ w, lambda y: (x @ w) * y):
        gradients = [
            grad(use(phi(x)).square().sum(), x, rules=rules)[0] for phi in (form, F.softplus)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_what_a_gate_shares_with_the_rest_stays_live():
    (x,) = leaves(0, (3, 4))

    def branching(x):
        shifted = x + 3
        cube = shifted**3
        return x * torch.tanh(cube) + cube * 2 + shifted

    check(
        branching,
        lambda x: (
            x * torch.tanh((x + 3) ** 3).detach() + 2 * (x + 3) * ((x + 3) ** 2).detach() + (x + 3)
        ),
        [x],
    )
    outputs = (x * torch.tanh(cube := (x + 3) ** 3)).sum(), cube.sum()
    (gradient,) = grad(outputs, x)
    expected = torch.tanh((x + 3) ** 3) + (x + 3) ** 2
    torch.testing.assert_close(gradient, expected.detach(), rtol=1e-12, atol=0)


def test_an_explained_value_inside_of_a_gate_is_a_factor():
    (x,) = leaves(0, (3, 4))
    inner = torch.tanh(x + 1)
    value = x * (inner * 2 + 1)
    gradients = grad(value.sum(), [x, inner])
    torch.testing.assert_close(gradients[1], x.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        gradients[0],
        ((inner * 2 + 1) / 2 + x * (1 - inner**2) * 0).detach() + (x * inner / (x + 1)).detach(),
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("constant", ["number", "parameter"])
def test_constants_inside_are_biases_of_ordinary_gradients_alone(constant):
    x, shift = leaves(0, (3, 4), (4,))
    shift = 3.0 if constant == "number" else shift
    totals = []
    for rules in (LIBRA, PLAIN):
        with ConstantObserver():
            value = (x * torch.tanh(inner := x + shift)).sum()
        record = BiasRecord()
        grad(value, [x], rules=rules, on_bias=record, retain_graph=True)
        totals.append(record.total())
    expected = (torch.autograd.grad(value, inner)[0] * shift).sum().detach()
    assert totals[0] == 0
    torch.testing.assert_close(totals[1], expected, rtol=1e-12, atol=0)


@FEW
@given(SEEDS, st.sampled_from(sorted(TWINS)))
def test_a_held_value_may_be_gated_too(seed, name):
    """The values that are gated may be constants of the corrected graph themselves."""
    (x,) = leaves(seed, (3, 4))
    for phi in TWINS[name]:
        with ConstantObserver():
            output = (x + phi(x.sigmoid())).square().sum()
        total, magnitude = fullgrad_sum(output, [x])
        assert abs(total - output.detach()) <= 1e-13 * magnitude


def test_the_annotated_graph_names_the_parts():
    (x,) = leaves(0, (3, 4))
    value = TWINS["gelu_fast"][0](x)
    nodes = annotate_graph([value], [x], LIBRA).nodes
    parts = [
        (a.node.name(), a.operation.live) for a in nodes if isinstance(a.operation, EagerActivation)
    ]
    assert parts.count(("MulBackward0", ())) == 2  # x * x, and x times the inner polynomial
    assert sum(bool(live) for _, live in parts) == 1
