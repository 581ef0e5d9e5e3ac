"""Rules that whole architectures need: batch norms, statistics, clamps, writes into views."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, check, fullgrad_sum, leaves
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from libragrad_lightning.backward import (
    LIBRA,
    PLAIN,
    ConstantObserver,
    LibraGradError,
    TrainingStatisticsError,
    UnknownOperationError,
    grad,
)

SIZES = st.integers(1, 3)


def assert_complete(output, inputs, rules=LIBRA):
    total, magnitude = fullgrad_sum(output, inputs, rules)
    assert abs(total - output.detach()) <= 1e-12 * magnitude


def batch_norm(channels, dimension, affine=True):
    kind = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dimension]
    norm = kind(channels, affine=affine).double().eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    for parameter in norm.parameters():
        parameter.data.normal_()
    return norm


@FEW
@given(SEEDS, SIZES, SIZES, st.integers(0, 3), st.booleans())
def test_batch_norm_in_evaluation_is_affine(seed, b, c, dimension, affine):
    torch.manual_seed(seed)
    norm = batch_norm(c, dimension, affine)
    (x,) = leaves(seed, (b, c, 3, 2, 2)[: 2 + dimension])
    axes = (-1, *[1] * dimension)

    def written_out(x):
        scale = (norm.running_var + norm.eps).rsqrt() * (norm.weight.detach() if affine else 1)
        shift = norm.bias.detach() if affine else 0
        centered = x - norm.running_mean.reshape(axes)
        return centered * scale.reshape(axes) + (shift.reshape(axes) if affine else 0)

    for rules in (LIBRA, PLAIN):
        check(norm, written_out, [x], rules=rules)
        assert_complete((norm(x) ** 1).sum(), [x], rules)


@pytest.mark.parametrize("rules", [LIBRA, PLAIN], ids=repr)
@pytest.mark.parametrize("batch", [1, 2])
def test_batch_norm_is_right_for_gradients_whose_channels_come_last(rules, batch):
    norm = batch_norm(3, 2)
    (x,) = leaves(0, (batch, 3, 4, 5))
    gradient = torch.randn(batch, 3, 4, 5).double().to(memory_format=torch.channels_last)
    (got,) = grad(norm(x), x, gradient, rules=rules)
    scale = norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()
    torch.testing.assert_close(got, gradient * scale.reshape(-1, 1, 1), rtol=1e-12, atol=0)


def test_statistics_of_a_batch_are_refused_in_one_sentence():
    (x,) = leaves(0, (4, 3, 2, 2))
    output = batch_norm(3, 2).train()(x).sum()
    with pytest.raises(TrainingStatisticsError, match=r"batch of 4.*`model\.eval\(\)`") as caught:
        grad(output, x)
    assert isinstance(caught.value, LibraGradError)
    assert str(caught.value).count(".") == 2  # of model.eval() and at the end


@FEW
@given(SEEDS, st.integers(1, 3), SIZES, st.booleans())
def test_instance_norm_holds_its_deviations(seed, b, c, affine):
    torch.manual_seed(seed)
    norm = nn.InstanceNorm2d(c, affine=affine).double()
    for parameter in norm.parameters():
        parameter.data.normal_()
    (x,) = leaves(seed, (b, c, 3, 4))

    def held(x):
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        y = (x - mean) / (variance + norm.eps).sqrt().detach()
        return y if not affine else y * norm.weight[:, None, None] + norm.bias[:, None, None]

    check(norm, held, [x])
    assert_complete((norm(x) * torch.randn(b, c, 3, 4)).sum(), [x])


@FEW
@given(SEEDS, st.sampled_from([0, 1, -1, (0, 1), (-2, -1)]), st.booleans())
def test_the_mean_beside_a_variance_is_linear(seed, dim, deviation):
    (x,) = leaves(seed, (3, 4))
    both = torch.std_mean if deviation else torch.var_mean

    def normalized(x):
        scale, mean = both(x, dim, keepdim=True)
        return (x - mean) / (scale + 1)

    def held(x):
        scale, mean = both(x, dim, keepdim=True)
        return (x - mean) / (scale + 1).detach()

    check(normalized, held, [x])
    assert_complete((normalized(x) * torch.randn(3, 4).double()).sum(), [x])


def test_a_variance_alone_stays_a_constant_factor():
    (x,) = leaves(1, (3, 4))
    check(lambda x: x * torch.var_mean(x)[0], lambda x: x * torch.var_mean(x)[0].detach(), [x])


@FEW
@given(SEEDS, st.sampled_from([None, 0, 1, -1]))
def test_a_product_over_an_axis_is_counted_once(seed, dim):
    (x,) = leaves(seed, (3, 4))
    product = x.prod() if dim is None else x.prod(dim)
    (gradient,) = grad(product.sum(), x, retain_graph=True)
    torch.testing.assert_close((gradient * x).sum(), product.sum(), rtol=1e-12, atol=1e-14)
    factors = x.numel() if dim is None else x.shape[dim]
    (ordinary,) = torch.autograd.grad(product.sum(), x, retain_graph=True)
    torch.testing.assert_close(gradient, ordinary / factors, rtol=1e-12, atol=0)


@FEW
@given(SEEDS, st.floats(0.5, 6))
def test_generalized_mean_pooling_is_complete(seed, power):
    (x,) = leaves(seed, (2, 3, 4))
    p = torch.tensor([power], dtype=torch.float64, requires_grad=True)

    def pooled(x):
        return x.clamp(min=1e-6).pow(p).mean(-1).pow(1.0 / p)

    assert_complete(pooled(x).sum(), [x])


def test_an_exponent_that_depends_on_the_input_is_held():
    x, k = leaves(2, (3, 4), (4,))
    check(lambda x: 2 ** (x * k) * x, lambda x: (2 ** (x * k)).detach() * x, [x])
    check(lambda x: x.exp() ** x.sum(), lambda x: x.exp().detach() ** x.sum().detach() + 0 * x, [x])


@FEW
@given(SEEDS, st.booleans(), st.booleans())
def test_lerp_holds_its_weights(seed, live_weight, constant_end):
    x, end, w = leaves(seed, (3, 4), (4,), (3, 4))

    def mixed(x, weight):
        return torch.lerp(x, end if constant_end else x**2, weight)

    weight = (lambda x: x * w) if live_weight else (lambda x: w.detach())
    check(lambda x: mixed(x, weight(x)), lambda x: _lerp_by_hand(x, end, constant_end, weight), [x])
    assert_complete(mixed(x, weight(x)).sum(), [x])
    assert_complete(mixed(x, 0.3).sum(), [x])


def _lerp_by_hand(x, end, constant_end, weight):
    w = weight(x).detach()
    square = x * x.detach()  # a square, counted once
    return (1 - w) * x + w * (end.detach() if constant_end else square)


def test_samples_of_a_grid_are_linear_in_what_is_sampled():
    (x,) = leaves(3, (2, 3, 4, 4))
    grid = torch.rand(2, 5, 5, 2).double() * 2 - 1

    def sampled(x, offset):
        return F.grid_sample(x, (grid + offset).tanh(), align_corners=False)

    check(
        lambda x: sampled(x, x.mean()),
        lambda x: sampled(x, x.mean().detach()),
        [x],
    )
    assert_complete(sampled(x, x.mean()).sum(), [x])


BOUNDS = {
    "numbers_above_zero": lambda x: x.clamp(0.5, 2),
    "numbers_below_zero": lambda x: x.clamp(-2, -0.5),
    "minimum": lambda x: torch.clamp_min(x, 0.5),
    "maximum": lambda x: torch.clamp_max(x, -0.5),
    "tensors": lambda x: x.clamp(torch.tensor(-0.5), torch.tensor(0.25)),
    "tensor_minimum": lambda x: torch.clamp_min(x, torch.linspace(-1, 1, 4)),
    "tensor_maximum": lambda x: torch.clamp_max(x, torch.linspace(-1, 1, 4)),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_clamp_without_a_gate_selects_the_value_or_a_bound(name):
    (x,) = leaves(4, (5, 4))
    x.data[0, 0] = 0
    weight = torch.randn(5, 4).double()
    output = (BOUNDS[name](x) * weight).sum()
    (gradient,) = grad(output, x, retain_graph=True)
    inside = BOUNDS[name](x).detach() == x.detach()
    assert 0 < inside.sum() < 20
    torch.testing.assert_close(gradient, weight * inside, rtol=0, atol=0)
    assert_complete(output, [x])


def test_bounds_that_are_parameters_or_depend_on_the_input():
    x, parameter = leaves(5, (5, 4), (4,))
    parameter.data.abs_().neg_()
    for low in (parameter, 0.3 * x.amin()):
        assert_complete(x.clamp(min=low.expand(4)).sum(), [x])
        assert_complete(torch.clamp_min(x, low).sum(), [x])
        assert_complete(torch.clamp_max(x, low).sum(), [x])
        assert_complete(x.clamp(low.expand(4), 0.5 * x.amax()).sum(), [x])


def written(x, write):
    y = 2 * x
    write(y, x)
    return y


WRITES = {
    "copy": lambda y, x: y[:, 0].copy_(x[:, 1]),
    "assignment": lambda y, x: y.__setitem__((slice(None), 0), x[:, 1]),
    "addition": lambda y, x: y[:, 1:].add_(x[:, 1:], alpha=0.5),
    "subtraction": lambda y, x: y[:, 1:].sub_(x[:, 1:]),
    "indexed_addition": lambda y, x: y[:, :2].index_add_(0, torch.tensor([1]), x[:1, :2]),
    "selection": lambda y, x: y[:, 1:].relu_(),
    "erasure": lambda y, x: y[:, 0].zero_(),
}


@pytest.mark.parametrize("name", WRITES)
def test_affine_writes_into_a_view_are_known_and_complete(name):
    (x,) = leaves(6, (3, 4))
    weight = torch.randn(3, 4).double()
    output = (written(x, WRITES[name]) * weight).sum()
    assert "CopySlices" in written(x, WRITES[name]).grad_fn.name()
    assert_complete(output, [x])
    (expected,) = torch.autograd.grad(output, x, retain_graph=True)
    torch.testing.assert_close(grad(output, x)[0], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "write",
    [
        lambda y, x: y[:, 1:].mul_(x[:, 1:]),
        lambda y, x: y[:, 1:].sigmoid_(),
        lambda y, x: y[:, 1:].addcmul_(x[:, 1:], x[:, 1:]),
        lambda y, x: y[:, 1:].pow_(2),
    ],
    ids=["product", "gate", "addcmul", "power"],
)
def test_other_writes_into_a_view_are_reported(write):
    (x,) = leaves(7, (3, 4))
    with pytest.raises(UnknownOperationError, match="CopySlices"):
        grad(written(x, write).sum(), x)


@pytest.mark.parametrize(
    "write",
    [
        lambda y, x: F.leaky_relu(y[:, 1:], 0.1, inplace=True),
        lambda y, x: nn.LeakyReLU(0.1, inplace=True)(y.view(-1)),
        lambda y, x: torch.neg_(y[:, 1:]),
    ],
)
def test_piecewise_linear_writes_are_known_where_they_were_observed(write):
    (x,) = leaves(6, (3, 4))
    with ConstantObserver():
        output = written(x, write).square().sum()
    assert_complete(output, [x])
    with pytest.raises(UnknownOperationError, match="CopySlices"):
        grad(written(x, write).sum(), x)


@FEW
@given(SEEDS)
def test_a_parameter_written_into_a_view_is_a_bias(seed):
    x, position = leaves(seed, (3, 4), (2,))

    def embedded(x):
        y = 2 * x
        y[:, 1:3] += position
        return y

    assert_complete((embedded(x) ** 2).sum(), [x])
