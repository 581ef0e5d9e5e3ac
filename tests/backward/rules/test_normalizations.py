"""Normalizations: statistics that scale are constants, the mean is linear (section 3.4)."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, check, leaves
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from libragrad_lightning.backward import LIBRA, PLAIN, VOCABULARY, Role, grad
from libragrad_lightning.backward.graph import Flow

SIZES = st.integers(1, 4)
EPS = st.sampled_from([1e-6, 1e-5, 1e-2])


def standardized(x, axes, eps):
    """(x - mean) / sqrt(var + eps) with the biased variance, held, by sums alone."""
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    centered = x - x.sum(axes, keepdim=True) / count
    variance = (centered.detach() ** 2).sum(axes, keepdim=True) / count
    return centered / (variance + eps).sqrt()


@FEW
@given(SEEDS, SIZES, SIZES, st.integers(2, 5), st.integers(1, 3), st.booleans(), EPS)
def test_layer_norm(seed, b, n, d, normalized_axes, affine, eps):
    shape = (b, n, d)[3 - normalized_axes :]
    x, gamma, beta = leaves(seed, (b, n, d), shape, shape)
    axes = tuple(range(3 - normalized_axes, 3))
    parameters = (gamma, beta) if affine else (None, None)

    def reference(x):
        y = standardized(x, axes, eps)
        return gamma * y + beta if affine else y

    check(lambda x: F.layer_norm(x, shape, *parameters, eps), reference, [x])


def test_layer_norm_with_a_scale_and_no_shift():
    x, gamma = leaves(0, (2, 3, 4), (4,))
    check(
        lambda x: F.layer_norm(x, (4,), gamma),
        lambda x: gamma * standardized(x, (2,), 1e-5),
        [x],
    )


@FEW
@given(SEEDS, SIZES, st.integers(1, 3), st.integers(2, 3), st.integers(0, 2), st.booleans(), EPS)
def test_group_norm(seed, b, groups, width, dimension, affine, eps):
    channels, space = groups * width, (3, 2)[:dimension]
    x, gamma, beta = leaves(seed, (b, channels, *space), (channels,), (channels,))
    per_channel = (-1, *[1] * dimension)

    def reference(x):
        rows = standardized(x.reshape(b, groups, -1), (2,), eps).reshape(x.shape)
        return rows * gamma.reshape(per_channel) + beta.reshape(per_channel) if affine else rows

    parameters = (gamma, beta) if affine else (None, None)
    check(lambda x: F.group_norm(x, groups, *parameters, eps), reference, [x])


def test_group_norm_of_channels_last():
    x, gamma, beta = leaves(0, (2, 4, 3, 5), (4,), (4,))

    def reference(x):
        rows = standardized(x.reshape(2, 2, -1), (2,), 1e-5).reshape(x.shape)
        return rows * gamma[:, None, None] + beta[:, None, None]

    check(
        lambda x: F.group_norm(x.to(memory_format=torch.channels_last), 2, gamma, beta),
        reference,
        [x],
    )


@FEW
@given(SEEDS, SIZES, st.integers(2, 5), st.booleans(), EPS)
def test_rms_norm(seed, n, d, affine, eps):
    x, gamma = leaves(seed, (n, d), (d,))
    module = nn.RMSNorm(d, eps, elementwise_affine=affine, dtype=torch.float64)
    if affine:
        module.weight.data.copy_(gamma.detach())

    def reference(x):
        y = x / ((x.detach() ** 2).sum(-1, keepdim=True) / d + eps).sqrt()
        return y * gamma if affine else y

    check(module, reference, [x])


@FEW
@given(
    SEEDS, SIZES, st.integers(2, 5), st.sampled_from([1, 2, 3, torch.inf]), st.sampled_from([0, 1])
)
def test_unit_vectors(seed, n, d, p, dim):
    (x,) = leaves(seed, (n, d))
    check(
        lambda x: F.normalize(x, p=p, dim=dim),
        lambda x: x / torch.linalg.vector_norm(x.detach(), p, dim, keepdim=True),
        [x],
    )


def test_the_unit_vector_of_zero_is_bounded_by_eps():
    (x,) = leaves(0, (2, 3))
    x.data[0] = 0
    check(
        lambda x: F.normalize(x, dim=1, eps=0.5),
        lambda x: x / x.detach().norm(dim=1, keepdim=True).clamp(min=0.5),
        [x],
    )


COMPOSED = {
    "var_rsqrt": lambda x: centered(x) * (x.var(-1, correction=0, keepdim=True) + 1e-5).rsqrt(),
    "var_sqrt": lambda x: centered(x) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt(),
    "var_mean": lambda x: from_var_mean(*torch.var_mean(x, -1, correction=0, keepdim=True), x),
    "second_moment": lambda x: centered(x) * (mean(centered(x) ** 2) + 1e-5).rsqrt(),
    "second_moment_sqrt": lambda x: centered(x) / (mean(centered(x) ** 2) + 1e-5).sqrt(),
    "square_of_itself": lambda x: centered(x) / (mean(centered(x) * centered(x)) + 1e-5).sqrt(),
    "inverse_power": lambda x: centered(x) * (mean(centered(x) ** 2) + 1e-5) ** -0.5,
    "reciprocal": lambda x: centered(x) * (mean(centered(x) ** 2) + 1e-5).sqrt().reciprocal(),
    "one_over": lambda x: centered(x) * (1 / (mean(centered(x) ** 2) + 1e-5).sqrt()),
    "tensor_power": lambda x: (
        centered(x) * (mean(centered(x) ** 2) + 1e-5) ** torch.tensor(-0.5, dtype=x.dtype)
    ),
}


def mean(x):
    return x.mean(-1, keepdim=True)


def centered(x):
    return x - mean(x)


def from_var_mean(variance, mean, x):
    return (x - mean) * (variance + 1e-5).rsqrt()


@pytest.mark.parametrize("name", COMPOSED)
@FEW
@given(seed=SEEDS, n=SIZES, d=st.integers(2, 5))
def test_a_normalization_written_by_hand_gets_the_gradient_of_a_fused_one(name, seed, n, d):
    x, gamma = leaves(seed, (n, d), (d,))
    check(
        lambda x: COMPOSED[name](x) * gamma,
        lambda x: standardized(x, (-1,), 1e-5) * gamma,
        [x],
    )
    (y,) = leaves(seed, (n, d))
    cotangent = torch.randn(n, d, dtype=torch.float64)
    (fused,) = grad(F.layer_norm(x, (d,), gamma), x, cotangent)
    (composed,) = grad(COMPOSED[name](y) * gamma, y, cotangent)
    torch.testing.assert_close(composed, fused, rtol=1e-9, atol=1e-11)


@FEW
@given(SEEDS, SIZES, st.integers(2, 5))
def test_deviations_of_a_sample_are_constants(seed, n, d):
    (x,) = leaves(seed, (n, d))
    check(
        lambda x: centered(x) / (x.std(-1, keepdim=True) + 0.1),
        lambda x: centered(x) / (x.std(-1, keepdim=True) + 0.1).detach(),
        [x],
    )
    check(
        lambda x: x / x.norm() * x.var().reciprocal(),
        lambda x: x / x.norm().detach() / x.var().detach(),
        [x],
    )


@pytest.mark.parametrize("operand", ["scale", "shift"])
def test_an_explained_scale_or_shift_keeps_its_ordinary_gradient(operand):
    x, gamma, beta = leaves(0, (3, 4), (4,), (4,))
    (explained,) = ({"scale": gamma, "shift": beta}[operand],)
    value = F.layer_norm(x.detach(), (4,), gamma, beta)
    cotangent = torch.randn(3, 4, dtype=torch.float64)
    (expected,) = torch.autograd.grad(value, explained, cotangent, retain_graph=True)
    assert torch.equal(grad(value, explained, cotangent)[0], expected)


@pytest.mark.parametrize(
    "normalize",
    [lambda x: F.layer_norm(x, (4,)), lambda x: F.group_norm(x.transpose(1, 2), 2)],
    ids=["layer_norm", "group_norm"],
)
def test_without_the_rule_gradients_are_ordinary(normalize):
    (x,) = leaves(0, (2, 3, 4))
    value = normalize(x)
    cotangent = torch.randn(value.shape, dtype=value.dtype)
    libra, plain, ablated = (
        grad(value, x, cotangent, rules=rules, retain_graph=True)[0]
        for rules in (LIBRA, PLAIN, LIBRA.without(Role.NORMALIZATION))
    )
    assert torch.equal(ablated, plain)
    assert not torch.allclose(libra, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["layer", "group", "rms"])
def test_gradients_have_the_dtype_of_the_input(kind, dtype):
    def normalize(x):
        if kind == "layer":
            return F.layer_norm(x, (8,))
        return F.group_norm(x, 2) if kind == "group" else F.rms_norm(x, (8,))

    x = torch.randn(3, 8).to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    cotangent = torch.randn(3, 8).to(dtype)
    (gradient,) = grad(normalize(x), x, cotangent)
    (expected,) = grad(normalize(exact), exact, cotangent.double())
    assert gradient.dtype == dtype
    tolerance = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(gradient.double(), expected, rtol=tolerance, atol=tolerance)


def test_a_constant_that_is_normalized_keeps_its_gradient():
    x, constant = leaves(0, (4,), (3, 4))
    node = F.layer_norm(constant, (4,), None, x).grad_fn
    live, fixed = Flow.LIVE, Flow.CONSTANT
    assert LIBRA.correct(VOCABULARY.of(node), node, (fixed, fixed, live)).rewrite is None
    assert LIBRA.correct(VOCABULARY.of(node), node, (live, fixed, live)).rewrite is not None
    (gradient,) = grad(F.layer_norm(constant, (4,), None, x).sum(), x)
    assert torch.equal(gradient, torch.full((4,), 3.0, dtype=torch.float64))
