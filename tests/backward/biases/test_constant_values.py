"""Constants that are computed from parameters: their values are found, or named as unknown."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, BiasRecord, fullgrad_sum, leaves
from hypothesis import given
from hypothesis import strategies as st
from linear_cases import LINEAR
from torch import nn

from libragrad_lightning.backward import (
    LIBRA,
    PLAIN,
    ConstantObserver,
    LibraGradError,
    Power,
    RuleSet,
    UnknownConstantError,
    grad,
)
from libragrad_lightning.backward.biases import BiasKind

BUFFER = torch.linspace(-2, 3, 24, dtype=torch.float64).reshape(4, 6)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 3 * ctx.saved_tensors[0] ** 2


NONLINEAR = {
    "product": lambda p, q: p * q,
    "square": lambda p, q: p * p,
    "matrix_product": lambda p, q: p @ q.T @ q,
    "batched_product": lambda p, q: torch.einsum("ij,kj,kl->il", p, q, q),
    "convolution": lambda p, q: F.conv1d(p[None], q[:, :4, None], q[:, 0])[0],
    "fused_product": lambda p, q: torch.addmm(p, q, q.T @ p, beta=2, alpha=0.5),
    "quotient": lambda p, q: p / q,
    "quotient_by_parameter": lambda p, q: BUFFER / p,
    "number_over_parameter": lambda p, q: 1 / p,
    "exponential": lambda p, q: p.exp() - q,
    "exponential_times_detached": lambda p, q: p.exp() * q.detach(),
    "power": lambda p, q: p**3 - p**-2,
    "power_of_tensors": lambda p, q: (p.abs() + 1) ** q,
    "number_to_a_power": lambda p, q: 2**p,
    "square_root": lambda p, q: (p * p).sqrt(),
    "sine": lambda p, q: p.sin(),
    "sigmoid": lambda p, q: p.sigmoid(),
    "softplus": lambda p, q: F.softplus(p),
    "softmax": lambda p, q: p.softmax(-1),
    "logarithm": lambda p, q: (p * p).log(),
    "tanh": lambda p, q: p.tanh(),
    "gelu": lambda p, q: F.gelu(p) + q,
    "gelu_tanh": lambda p, q: F.gelu(p, approximate="tanh"),
    "silu": lambda p, q: F.silu(p),
    "hardswish": lambda p, q: F.hardswish(p),
    "elu": lambda p, q: F.elu(p),
    "relu6": lambda p, q: F.relu6(p),
    "clamp": lambda p, q: p.clamp(0.5, 1.5),
    "clamp_to_tensors": lambda p, q: p.clamp(min=q),
    "maximum_with_buffer": lambda p, q: torch.maximum(p, BUFFER),
    "glu": lambda p, q: F.glu(torch.cat([p, q]), 0),
    "layer_norm": lambda p, q: F.layer_norm(p, (6,), q[0], q[1]),
    "layer_norm_of_a_buffer": lambda p, q: F.layer_norm(BUFFER, (6,), q[0], q[1]),
    "rms_norm": lambda p, q: F.rms_norm(p, (6,), q[0]),
    "group_norm": lambda p, q: F.group_norm(p[None], 2, q[:, 0], q[:, 1])[0],
    "normalize": lambda p, q: F.normalize(p, dim=-1),
    "batch_norm": lambda p, q: F.batch_norm(p, BUFFER[0], BUFFER[1].exp(), q[0], q[1]),
    "lerp": lambda p, q: torch.lerp(p, q, q.sigmoid()),
    "standardized": lambda p, q: (p - p.mean(-1, keepdim=True)) / p.std(-1, keepdim=True),
    "attention": lambda p, q: F.scaled_dot_product_attention(*[p[None]] * 2, q[None])[0],
    "eager_attention": lambda p, q: (p @ q.T).softmax(-1) @ q,
    "layer": lambda p, q: F.linear(F.gelu(F.linear(p, q, q[:, 0])), q.T, q[0]),
    "cosine": lambda p, q: F.cosine_similarity(p, q)[:, None].expand(4, 6),
    "product_of_all": lambda p, q: p.prod(1, keepdim=True).expand(4, 6),
}


def assert_is_a_bias(constant, x, parameters, rules=LIBRA):
    """Assert that a constant that is added to x is found with its value."""
    with ConstantObserver():
        value = constant(*parameters)
    factor = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    live = (x * 1).expand(value.shape)
    record = BiasRecord()
    grad(((live + value) * factor).sum(), x, rules=rules, on_bias=record)
    (contribution,) = record.contributions
    expected = (value * factor).detach()
    torch.testing.assert_close(contribution, expected, rtol=1e-10, atol=1e-10)
    assert record.sites[0].kind is BiasKind.RECORDED


@pytest.mark.parametrize("rules", [LIBRA, PLAIN], ids=repr)
@pytest.mark.parametrize("name", NONLINEAR)
def test_the_value_of_a_nonlinear_function_of_parameters(name, rules):
    x, *parameters = leaves(0, (1, 1), (4, 6), (4, 6))
    assert_is_a_bias(NONLINEAR[name], x, parameters, rules)


@pytest.mark.parametrize("name", sorted(set(LINEAR) - {"ToCopyBackward"}))
def test_the_value_of_a_linear_function_of_a_parameter(name):
    x, p = leaves(1, (), (4, 6))
    assert_is_a_bias(LINEAR[name], x, [p])


@FEW
@given(SEEDS, st.lists(st.sampled_from(sorted(NONLINEAR)), min_size=2, max_size=4))
def test_the_value_of_nested_functions_of_parameters(seed, names):
    x, p, q = leaves(seed, (1, 1), (4, 6), (4, 6))

    def nested(p, q):
        for name in names:
            p = NONLINEAR[name](p, q).tanh() + 0.1
        return p

    assert_is_a_bias(nested, x, [p, q])


def test_numbers_and_buffers_inside_of_a_constant_are_observed():
    x, p, q = leaves(0, (1, 1), (4, 6), (4, 6))
    for constant in (
        lambda p, q: 1 - p,
        lambda p, q: (p + BUFFER) * q,
        lambda p, q: torch.cat([p[:2], BUFFER[2:]]).exp(),
        lambda p, q: torch.where(BUFFER > 0, p, 2.0) + q,
    ):
        assert_is_a_bias(constant, x, [p, q])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_constant_of_another_dtype(dtype):
    x, p = leaves(0, (4, 6), (4, 6))
    value = (p * p).to(dtype)
    record = BiasRecord()
    grad((x + value).sum(), x, on_bias=record)
    torch.testing.assert_close(record.total(), value.detach().double().sum())


def test_complex_parameters_that_are_added_to_a_spectrum():
    x, real, imaginary = leaves(0, (4, 6), (4, 4), (4, 4))
    shift = torch.complex(real, imaginary.sin())
    total, magnitude = fullgrad_sum(
        output := (torch.fft.irfft(torch.fft.rfft(x) + shift, n=6) * BUFFER).sum(), [x]
    )
    assert abs(total - output.detach()) <= 1e-13 * magnitude


def test_an_operation_whose_value_is_not_known_is_named():
    x, p = leaves(0, (4, 6), (4, 6))
    for constant, name in ((Cube.apply, "CubeBackward"), (lambda p: p.erfinv(), "Erfinv")):
        with pytest.raises(UnknownConstantError, match=f"computed from parameters by {name}"):
            grad((x + constant(p)).sum(), x, on_bias=BiasRecord())
    with pytest.raises(LibraGradError, match="VarMeanBackward"):
        grad((x + torch.var_mean(p)[0]).sum(), x, on_bias=BiasRecord())
    vocabulary = LIBRA.vocabulary.extended({"CubeBackward": Power(lambda node: 3.0)})
    assert_is_a_bias(Cube.apply, x[:1, :1], [p], RuleSet("mine", LIBRA.rules, vocabulary))


def test_an_unknown_function_of_parameters_that_multiplies_or_whose_gradient_stops_does_no_harm():
    x, p = leaves(0, (4, 6), (4, 6))
    record = BiasRecord()
    grad((x * Cube.apply(p) + (x + Cube.apply(p)).sigmoid() * x).sum(), x, on_bias=record)
    assert not record.sites


def test_no_hook_survives_an_unknown_constant():
    x, p = leaves(0, (4, 6), (4, 6))
    y = (F.gelu(x) + Cube.apply(p)).sum()
    ordinary = torch.autograd.grad(y, x, retain_graph=True)[0]
    with pytest.raises(UnknownConstantError):
        grad(y, x, on_bias=BiasRecord(), retain_graph=True)
    assert torch.equal(torch.autograd.grad(y, x)[0], ordinary)


@pytest.mark.parametrize("shape", [(6,), (1,), (4, 1), (), (1, 6)])
@pytest.mark.parametrize("rules", [LIBRA, PLAIN], ids=repr)
def test_parameters_that_broadcast_are_reported_in_the_shape_of_the_output(shape, rules):
    x, p = leaves(3, (4, 6), shape)
    mask = BUFFER > 0
    for forward, added in (
        (lambda x: torch.where(mask, x, p), torch.where(mask, 0, p)),
        (lambda x: torch.where(mask, p, x), torch.where(mask, p, 0)),
        (lambda x: torch.maximum(x, p), torch.where(x > p, 0, p)),
        (lambda x: torch.minimum(p, x), torch.where(x < p, 0, p)),
        (lambda x: torch.rsub(x, p, alpha=2), p.expand(4, 6)),
        (lambda x: torch.lerp(x, p, 0.25), 0.25 * p.expand(4, 6)),
    ):
        record = BiasRecord()
        grad(forward(x), x, BUFFER, rules=rules, on_bias=record)
        (contribution,) = record.contributions
        torch.testing.assert_close(contribution, (BUFFER * added).detach())


def test_equal_operands_of_a_maximum_count_by_half():
    (x,) = leaves(0, (4, 6))
    p = x.detach().clone().requires_grad_()
    for extremum in (torch.maximum, torch.minimum):
        total, magnitude = fullgrad_sum(output := extremum(x, p).sum(), [x])
        assert abs(total - output.detach()) <= 1e-13 * magnitude


def test_concatenated_parameters_are_reported_where_they_lie_in_the_output():
    x, token = leaves(0, (2, 3, 4), (1, 1, 4))
    tokens = torch.cat([token.expand(2, -1, -1), x], 1)
    record = BiasRecord()
    grad(tokens, x, torch.ones_like(tokens), on_bias=record)
    (contribution,) = record.contributions
    assert torch.equal(contribution[:, :1], token.detach().expand(2, 1, 4))
    assert not contribution[:, 1:].any()


def test_the_constant_branch_of_a_model_is_a_bias_at_the_branch_that_is_explained():
    torch.manual_seed(0)
    patches, other = leaves(0, (2, 3, 8), (2, 3, 8))
    branch = nn.Sequential(
        *[nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))] * 3
    ).double()
    head = nn.Linear(8, 1).double()
    inner = branch(other)
    output = head(branch(patches) + branch(inner)).sum()
    total, magnitude = fullgrad_sum(output, [patches])
    assert abs(total - output.detach()) <= 1e-13 * magnitude


def test_a_live_scale_of_a_normalization_is_a_factor():
    x, weight, bias = leaves(0, (4, 6), (6, 6), (6,))
    h = x[0] @ weight
    for output in (
        F.layer_norm(x, (6,), h, bias).square().sum(),
        F.rms_norm(x, (6,), h).square().sum(),
        F.layer_norm(BUFFER, (6,), h, bias).square().sum(),
        F.layer_norm(x.sin(), (6,), h, h).square().sum(),
        F.layer_norm(x.sin(), (6,), bias, h).square().sum(),
        F.layer_norm(bias, (6,), bias, x[0]).square().sum(),
        F.batch_norm(x, BUFFER[0], BUFFER[1].exp(), h, bias).square().sum(),
        F.batch_norm(BUFFER, BUFFER[0], BUFFER[1].exp(), h, bias).square().sum(),
        F.group_norm(x[None], 2, h[:4], bias[:4]).square().sum(),
    ):
        total, magnitude = fullgrad_sum(output, [x])
        assert abs(total - output.detach()) <= 1e-13 * magnitude
