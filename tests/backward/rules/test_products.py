"""Products: 1/n for each of n live factors; constants and dead factors are held (Thm 4 and 5)."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, check, leaves, scaled
from hypothesis import given
from hypothesis import strategies as st

from libragrad_lightning.backward import LIBRA, Role, grad
from libragrad_lightning.backward.graph import Correction, Flow
from libragrad_lightning.backward.rules import Product, hold_dead_factors

SIZES = st.integers(1, 4)


def slow_mm(a, b):
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)


def slow_conv(x, weight, bias=None):
    """Convolve [B, C, H, W] without padding, one offset of the kernel at a time."""
    height = x.shape[2] - weight.shape[2] + 1
    width = x.shape[3] - weight.shape[3] + 1
    out = torch.zeros(x.shape[0], weight.shape[0], height, width, dtype=x.dtype)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            window = x[:, None, :, i : i + height, j : j + width]
            out = out + (window * weight[None, :, :, i, j, None, None]).sum(2)
    return out if bias is None else out + bias[:, None, None]


@FEW
@given(SEEDS, SIZES, SIZES, SIZES, SIZES)
def test_two_live_factors_get_half_each(seed, b, n, k, m):
    x, y = leaves(seed, (b, n, k), (b, k, m))
    u, v = leaves(seed + 1, (n, k), (1, k))
    check(torch.bmm, lambda x, y: scaled(slow_mm(x, y), 0.5), [x, y])
    check(torch.matmul, lambda x, y: scaled(slow_mm(x, y), 0.5), [x, y])
    check(torch.mm, lambda x, y: scaled(slow_mm(x, y), 0.5), leaves(seed, (n, k), (k, m)))
    check(torch.mv, lambda a, w: scaled((a * w).sum(-1), 0.5), leaves(seed, (n, k), (k,)))
    check(torch.dot, lambda a, w: scaled((a * w).sum(), 0.5), leaves(seed, (k,), (k,)))
    check(torch.mul, lambda a, w: scaled(a * w, 0.5), [u, v])


@FEW
@given(SEEDS, SIZES, SIZES, SIZES, st.floats(-2, 2), st.floats(0.1, 2))
def test_products_with_an_addend_share_among_the_factors_alone(seed, n, k, m, beta, alpha):
    def added(addend, a, b):
        return beta * addend + alpha * scaled(slow_mm(a, b), 0.5)

    check(
        lambda c, a, b: torch.addmm(c, a, b, beta=beta, alpha=alpha),
        added,
        leaves(seed, (n, m), (n, k), (k, m)),
    )
    check(
        lambda c, a, b: torch.baddbmm(c, a, b, beta=beta, alpha=alpha),
        added,
        leaves(seed, (2, n, m), (2, n, k), (2, k, m)),
    )
    check(
        lambda c, a, b: torch.addmv(c, a, b, beta=beta, alpha=alpha),
        lambda c, a, b: beta * c + alpha * scaled((a * b).sum(-1), 0.5),
        leaves(seed, (n,), (n, k), (k,)),
    )
    check(
        lambda c, a, b: torch.addcmul(c, a, b, value=alpha),
        lambda c, a, b: c + alpha * scaled(a * b, 0.5),
        leaves(seed, (n, m), (n, 1), (m,)),
    )


@FEW
@given(SEEDS, st.integers(1, 2), SIZES, SIZES, st.integers(1, 3), st.integers(1, 3))
def test_convolution_with_a_live_or_a_constant_kernel(seed, b, c, o, height, width):
    x, weight, bias = leaves(seed, (b, c, 4, 5), (o, c, height, width), (o,))
    shared = lambda x, w, b: scaled(slow_conv(x, w), 0.5) + b[:, None, None]  # noqa: E731
    check(F.conv2d, shared, [x, weight, bias])
    check(lambda x: F.conv2d(x, weight, bias), lambda x: slow_conv(x, weight, bias), [x])


@FEW
@given(SEEDS, st.integers(1, 3), st.integers(2, 4), st.booleans())
def test_grouped_and_transposed_convolutions_are_linear_in_the_input(seed, b, length, transposed):
    x, weight, bias = leaves(seed, (b, 4, length + 1), (4, 2, 2), (4,))
    if transposed:
        convolve = lambda x: F.conv_transpose1d(x, weight, bias, groups=2, stride=2)  # noqa: E731
    else:
        convolve = lambda x: F.conv1d(x, weight, bias, groups=2, padding=1)  # noqa: E731
    check(convolve, convolve, [x])


@FEW
@given(SEEDS, st.integers(1, 6))
def test_a_chain_of_n_factors_is_counted_once(seed, n):
    factors = leaves(seed, *[(3,)] * n)

    def chain(*factors):
        out = factors[0]
        for factor in factors[1:]:
            out = out * factor
        return out

    def halved_chain(*factors):
        out = factors[0]
        for factor in factors[1:]:
            out = scaled(out * factor, 0.5)
        return out

    check(chain, halved_chain, factors)
    gradients = grad(chain(*factors).sum(), factors)
    total = sum((x * g).sum() for x, g in zip(factors, gradients, strict=True))
    torch.testing.assert_close(total, chain(*factors).sum(), rtol=1e-12, atol=1e-12)


@FEW
@given(SEEDS, SIZES, SIZES)
def test_a_product_with_a_constant_is_a_linear_map(seed, n, k):
    x, weight, gamma, buffer = leaves(seed, (n, k), (3, k), (3,), (n, 3))
    buffer = buffer.detach()

    def layer(x):
        return torch.addcmul(buffer, F.linear(x, weight) * 2.0, gamma) * buffer

    check(layer, layer, [x])


@FEW
@given(SEEDS, SIZES, SIZES)
def test_a_dead_factor_is_a_constant(seed, n, k):
    x, weight, kernel = leaves(seed, (n, 3), (k, 3), (3, 1, 1))

    def gate(x):
        return torch.sigmoid(F.linear(x, weight))

    check(
        lambda x: x.T @ (gate(x) * 3),
        lambda x: x.T @ (gate(x) * 3).detach(),
        [x],
    )
    check(
        lambda x: x * F.linear(gate(x), weight.T),
        lambda x: x * F.linear(gate(x), weight.T).detach(),
        [x],
    )
    check(
        lambda x: F.conv1d(x.T[None], torch.exp(kernel * x.sum()), groups=3),
        lambda x: F.conv1d(x.T[None], torch.exp(kernel * x.sum()).detach(), groups=3),
        [x],
    )


@FEW
@given(SEEDS, SIZES, SIZES)
def test_a_value_times_itself(seed, n, k):
    x, weight = leaves(seed, (n, k), (k, k))
    check(lambda x: x * x, lambda x: x * x.detach(), [x])
    check(lambda x: x @ x.T, lambda x: scaled(slow_mm(x, x.T), 0.5), [x])
    check(
        lambda x: (h := x @ weight) * h * h,
        lambda x: (h := x @ weight) * (h * h).detach(),
        [x],
    )


@FEW
@given(SEEDS, SIZES)
def test_einsum_and_self_gating_are_shared(seed, n):
    x, up, side = leaves(seed, (n, 3), (4, 3), (4, 3))
    check(
        lambda x: torch.einsum("ij,kj->ik", x @ up.T, x @ side.T),
        lambda x: scaled(slow_mm(x @ up.T, (x @ side.T).T), 0.5),
        [x],
    )
    check(
        lambda x: F.silu(x @ up.T) * (x @ side.T),
        lambda x: scaled(
            (x @ up.T) * torch.sigmoid(x @ up.T).detach() * (x @ side.T),
            0.5,
        ),
        [x],
    )


def test_prelu_is_linear_in_its_input():
    x, slope = leaves(0, (2, 3, 4), (3,))
    check(
        lambda x: F.prelu(x, slope),
        lambda x: torch.where(x > 0, x, slope[:, None] * x),
        [x],
    )


def test_without_the_product_rule_dead_factors_stay_constant():
    x, weight = leaves(0, (3, 3), (3, 3))
    rules = LIBRA.without(Role.PRODUCT)
    check(
        lambda x: (x @ weight) * x * torch.sigmoid(x),
        lambda x: (x @ weight) * x * torch.sigmoid(x).detach(),
        [x],
        rules=rules,
    )


@pytest.mark.parametrize("explained", [0, 1])
def test_explaining_one_factor_makes_the_other_a_constant(explained):
    factors = leaves(0, (2, 3), (3, 4))
    value = torch.mm(*factors)
    (gradient,) = grad(value.sum(), factors[explained])
    expected = torch.autograd.grad(torch.mm(*factors).sum(), factors[explained])[0]
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize(
    ("flows", "weights"),
    [
        ("LLL", (1.0, 1.0, 1.0)),
        ("LDD", (1.0, 0.0, 0.0)),
        ("DLC", (0.0, 1.0, 1.0)),
        ("DDD", (0.0, 0.0, 1.0)),
        ("DDC", (0.0, 1.0, 1.0)),
        ("CDC", (1.0, 1.0, 1.0)),
    ],
)
def test_of_dead_factors_alone_the_last_keeps_its_gradient(flows, weights):
    flow = {"L": Flow.LIVE, "D": Flow.DEAD, "C": Flow.CONSTANT}
    found = hold_dead_factors(
        Product((0, 1, 2)), Correction((1.0, 1.0, 1.0)), [flow[name] for name in flows]
    )
    assert found.weights == weights
