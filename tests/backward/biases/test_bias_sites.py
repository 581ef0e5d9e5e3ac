"""Contributions of biases: dF/dy * b, element by element, at the place where b is added."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, BiasRecord, fullgrad_sum, leaves
from hypothesis import given
from hypothesis import strategies as st

from libragrad_lightning.backward import DECOMPX, LIBRA, PLAIN, grad

SIZES = st.integers(1, 4)


def record_of(value, inputs, cotangent, rules=LIBRA):
    record = BiasRecord()
    grad(value, inputs, cotangent, rules=rules, on_bias=record)
    return record


def assert_adds(forward, x, expected, rules=LIBRA):
    """Assert that one bias is found, and that at the output it is the tensor `expected`."""
    value = forward(x)
    cotangent = torch.randn(value.shape, dtype=value.dtype)
    record = record_of(value, x, cotangent, rules)
    (contribution,) = record.contributions
    expected = (cotangent * expected.detach()).reshape(-1)  # a linear layer merges batch axes
    torch.testing.assert_close(contribution.reshape(-1), expected, rtol=1e-12, atol=1e-12)
    assert record.sites[0].depends_on == {0}


@pytest.mark.parametrize("rules", [LIBRA, PLAIN], ids=repr)
@FEW
@given(seed=SEEDS, b=SIZES, n=SIZES)
def test_linear_layers(rules, seed, b, n):
    x, weight, bias = leaves(seed, (b, n, 3), (4, 3), (4,))
    for inputs in (x, x[0].detach().requires_grad_(), x[0, 0].detach().requires_grad_()):
        assert_adds(lambda x: F.linear(x, weight, bias), inputs, bias, rules)
    strided = x.detach().transpose(0, 1).requires_grad_()
    assert_adds(lambda x: F.linear(x, weight, bias), strided, bias, rules)


@pytest.mark.parametrize("dimension", [1, 2, 3])
@FEW
@given(seed=SEEDS, b=SIZES, transposed=st.booleans())
def test_convolutions(dimension, seed, b, transposed):
    kernel = (4, 2, *[2] * dimension)
    x, weight, bias = leaves(seed, (b, 4, *[3] * dimension), kernel, (4,))
    per_channel = bias.reshape(-1, *[1] * dimension)
    name = f"conv_transpose{dimension}d" if transposed else f"conv{dimension}d"
    assert_adds(lambda x: getattr(F, name)(x, weight, bias, groups=2), x, per_channel)


def test_a_convolution_without_a_batch_axis():
    x, weight, bias = leaves(0, (3, 5, 4), (2, 3, 2, 2), (2,))
    assert_adds(lambda x: F.conv2d(x, weight, bias), x, bias[:, None, None])


@FEW
@given(SEEDS, SIZES, SIZES, st.floats(-2, 2), st.floats(-2, 2))
def test_products_with_an_addend(seed, n, m, beta, alpha):
    x, y, z, bias = leaves(seed, (n, 3), (2, n, 3), (4,), (m,))
    weight, weights, vector = leaves(seed + 1, (3, m), (2, 3, m), (3,))
    assert_adds(lambda x: torch.addmm(bias, x, weight, beta=beta, alpha=alpha), x, beta * bias)
    assert_adds(lambda y: torch.baddbmm(bias, y, weights, beta=beta, alpha=alpha), y, beta * bias)
    assert_adds(lambda z: torch.addcmul(bias[:1], z, z, value=alpha), z, bias[:1])
    assert_adds(lambda x: torch.addmv(bias[:1], x, vector, beta=beta), x, beta * bias[:1])


@FEW
@given(SEEDS, SIZES, SIZES, st.booleans())
def test_normalizations(seed, b, n, scaled):
    x, y, gamma, beta = leaves(seed, (b, n, 4), (b, 4, n), (4,), (4,))
    shape, bias = (n, 4), beta.expand(n, 4)
    assert_adds(lambda x: F.layer_norm(x, (4,), gamma, beta), x, beta)
    assert_adds(lambda x: F.layer_norm(x, shape, gamma.expand(shape), bias), x, beta)
    assert_adds(lambda y: F.group_norm(y, 2, gamma if scaled else None, beta), y, beta[:, None])


@FEW
@given(
    SEEDS,
    st.sampled_from([(4,), (1,), (), (3, 1), (1, 4), (2, 3, 4), (2, 1, 1)]),
    st.floats(-2, 2),
)
def test_sums_and_differences_with_broadcasting_and_a_factor(seed, shape, alpha):
    x, bias = leaves(seed, (3, 4), shape)
    assert_adds(lambda x: torch.add(x, bias, alpha=alpha), x, alpha * bias)
    assert_adds(lambda x: torch.add(bias, x, alpha=alpha), x, bias)
    assert_adds(lambda x: torch.sub(x, bias, alpha=alpha), x, -alpha * bias)
    assert_adds(lambda x: torch.sub(bias, x, alpha=alpha), x, bias)


@FEW
@given(SEEDS, SIZES, SIZES)
def test_a_bias_concatenated_from_parameters_and_a_buffer(seed, b, n):
    x, weight, query, value = leaves(seed, (b, n, 3), (6, 3), (2,), (2,))
    buffer = torch.zeros(2, dtype=torch.float64)
    expected = torch.cat([query, buffer, value])
    assert_adds(lambda x: F.linear(x, weight, torch.cat([query, buffer, value])), x, expected)


@FEW
@given(SEEDS, st.integers(1, 3))
def test_linear_functions_of_parameters(seed, b):
    x, table, gamma = leaves(seed, (b, 3, 4), (5, 4), (4,))
    rows = torch.tensor([4, 0, 2])
    for bias in (
        F.embedding(rows, table),
        table[rows] * 0.5 - table[:3],
        F.interpolate(table.T[None], size=3, mode="linear")[0].T,
        torch.stack([gamma, -gamma, gamma.flip(0)]),
        (table @ torch.eye(4, dtype=torch.float64)).roll(1, 0)[:3],
    ):
        assert_adds(lambda x, bias=bias: x + bias, x, bias)


SELECTIONS = {
    "concatenated": lambda x, p: torch.cat([x, p]),
    "stacked": lambda x, p: torch.stack([p, x], 1),
    "chosen": lambda x, p: torch.where(x.detach() > 0, x, p),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "put": lambda x, p: x.index_put((torch.tensor([2, 0]),), p[:2]),
    "put_and_added": lambda x, p: x.index_put((torch.tensor([2, 2]),), p[:2], accumulate=True),
    "added_by_index": lambda x, p: x.index_add(0, torch.tensor([1, 1]), p[:2], alpha=-0.5),
    "scattered": lambda x, p: x.scatter(1, torch.tensor([[3], [0], [1]]), p[:, :1]),
    "added_by_scatter": lambda x, p: x.scatter_add(1, torch.tensor([[3], [0], [1]]), p[:, :1]),
    "masked": lambda x, p: x.masked_scatter(x.detach() > 0, p),
    "filled": lambda x, p: x.masked_fill(x.detach() > 0, p.sum()),
    "row": lambda x, p: x.select_scatter(p[0], 0, 1),
    "rows": lambda x, p: x.slice_scatter(p[1:], 0, 0, 2),
    "between": lambda x, p: torch.lerp(x, p, 0.3),
    "reversed_difference": lambda x, p: torch.rsub(x, p, alpha=0.5),
}


@pytest.mark.parametrize("rules", [LIBRA, PLAIN], ids=repr)
@pytest.mark.parametrize("name", SELECTIONS)
def test_parameters_that_are_selected_or_arranged(name, rules):
    x, parameter = leaves(0, (3, 4), (3, 4))
    value = SELECTIONS[name](x, parameter)
    weight = torch.randn(value.shape, dtype=value.dtype)
    total, magnitude = fullgrad_sum((value * weight).sum(), [x], rules)
    assert abs(total - (value * weight).sum()).item() <= 1e-13 * magnitude.item()
    record = record_of(value, x, weight, rules)
    (by_autograd,) = torch.autograd.grad(SELECTIONS[name](x, parameter), parameter, weight)
    torch.testing.assert_close(record.total(), (by_autograd * parameter).sum())


@FEW
@given(SEEDS, st.integers(1, 3), st.integers(1, 3))
def test_a_class_token_and_positions_when_pixels_are_explained(seed, b, registers):
    pixels, patch, bias, cls, reg, position = leaves(
        seed, (b, 3, 4, 4), (6, 3, 2, 2), (6,), (1, 1, 6), (1, registers, 6), (1, 4, 6)
    )
    tokens = F.conv2d(pixels, patch, bias, stride=2).flatten(2).transpose(1, 2)
    prefix = [cls.expand(b, -1, -1), reg.expand(b, -1, -1)]
    z0 = torch.cat([*prefix, tokens + position], 1)
    cotangent = torch.randn(z0.shape, dtype=z0.dtype)
    record = record_of(z0, pixels, cotangent)
    found = dict.fromkeys((site.operation for site in record.sites), 0.0)
    for site, contribution in zip(record.sites, record.contributions, strict=True):
        found[site.operation] += contribution.sum()
    first = 1 + registers
    expected = {
        "CatBackward0": (cotangent[:, :1] * cls + 0).sum() + (cotangent[:, 1:first] * reg).sum(),
        "AddBackward0": (cotangent[:, first:] * position).sum(),
        "ConvolutionBackward0": (cotangent[:, first:] * bias).sum(),
    }
    assert set(found) == set(expected)
    for name, total in expected.items():
        torch.testing.assert_close(found[name], total.detach())


def test_sites_tell_to_which_explained_tensors_they_belong():
    x, first, second, third = leaves(0, (3, 4), (4,), (4,), (4,))
    a = x + first
    b = F.gelu(a) + second
    output = ((b + third) ** 2).sum()
    record = record_of(output, [x, a, b], None)
    assert [site.depends_on for site in record.sites] == [{0, 1, 2}, {0, 1}, {0}]
    sequence = [site.sequence for site in record.sites]
    assert sequence == sorted(sequence, reverse=True)


@FEW
@given(SEEDS)
def test_the_sum_is_complete_at_every_explained_tensor_of_one_call(seed):
    (x,) = leaves(seed, (2, 3, 4))
    weights = leaves(seed + 1, *[(4, 4)] * 4)
    biases = leaves(seed + 2, *[(4,)] * 4)
    features = [x]
    for weight, bias in zip(weights, biases, strict=True):
        h = features[-1]
        features.append(h + F.silu(F.linear(F.layer_norm(h, (4,), None, bias), weight, bias)))
    output = features.pop().mean((0, 1))[0]
    record = BiasRecord()
    gradients = grad(output, features, on_bias=record, retain_graph=True)
    for level, (h, gradient) in enumerate(zip(features, gradients, strict=True)):
        total = (h * gradient).sum() + record.total(level)
        torch.testing.assert_close(total, output, rtol=1e-10, atol=1e-10)


def test_biases_where_gradients_stop_and_of_constants_count_for_nothing():
    x, weight, bias = leaves(0, (3, 4), (4, 4), (4,))
    gate = torch.sigmoid(F.linear(x, weight, bias))
    for rules in (LIBRA, DECOMPX):
        record = BiasRecord()
        grad((x * gate).sum(), x, rules=rules, on_bias=record, retain_graph=True)
        assert not record.sites
    record = BiasRecord()
    grad((x * F.linear(weight, weight, bias).sum()).sum(), x, on_bias=record)
    assert not record.sites


def test_a_bias_that_requires_no_gradient_leaves_no_trace():
    x, weight, bias = leaves(0, (3, 4), (4, 4), (4,))
    frozen, trained = (F.linear(x, weight, b) for b in (bias.detach(), bias))
    cotangent = torch.randn(3, 4, dtype=torch.float64)
    assert not record_of(frozen, x, cotangent).sites
    assert len(record_of(trained, x, cotangent).sites) == 1


def test_no_gradient_is_left_on_parameters():
    x, weight, bias, token = leaves(0, (3, 4), (4, 4), (4,), (1, 4))
    record_of(F.linear(torch.cat([token, x]), weight, bias).sum(), x, None)
    assert all(leaf.grad is None for leaf in (x, weight, bias, token))


NONLINEAR_CONSTANTS = {
    "product_of_parameters": lambda p, q: p * q,
    "activated_parameter": lambda p, q: F.gelu(p) + q,
    "exponential": lambda p, q: p.exp() - q,
    "attenuated_by_its_detached_self": lambda p, q: p.exp() * q.detach(),
}


@pytest.mark.parametrize("name", NONLINEAR_CONSTANTS)
def test_nonlinear_functions_of_parameters(name):
    x, p, q = leaves(0, (3, 4), (4,), (4,))
    assert_adds(lambda x: x + NONLINEAR_CONSTANTS[name](p, q), x, NONLINEAR_CONSTANTS[name](p, q))


@pytest.mark.parametrize("operation", [torch.addcmul, torch.addmm])
def test_constant_products_added_to_a_live_addend(operation):
    x, p, q = leaves(0, (4, 4), (4, 4), (4, 4))
    product = p * q if operation is torch.addcmul else p @ q
    assert_adds(lambda x: operation(x, p, q), x, product)
