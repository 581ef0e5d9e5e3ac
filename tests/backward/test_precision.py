"""Half precision: activations and parameters of different dtypes, and autocast."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import BiasRecord
from torch import nn

from libragrad_lightning.backward import LIBRA, PLAIN, RULE_SETS, grad

BF16 = 2**-8
"""The relative rounding of bfloat16."""

SHAPE = (3, 8, 6)
LAYERS = {
    "layer_norm": lambda: nn.LayerNorm(6),
    "group_norm": lambda: nn.GroupNorm(2, 8),
    "rms_norm": lambda: nn.RMSNorm(6),
    "batch_norm": lambda: nn.BatchNorm1d(8),
    "instance_norm": lambda: nn.InstanceNorm1d(8, affine=True),
    "gelu": lambda: nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6)),
    "tanh": lambda: nn.Sequential(nn.Linear(6, 6), nn.Tanh()),
    "silu": lambda: nn.Sequential(nn.Linear(6, 6), nn.SiLU()),
    "glu": lambda: nn.Sequential(nn.Linear(6, 12), nn.GLU()),
    "linear": lambda: nn.Linear(6, 5),
    "convolution": lambda: nn.Conv1d(8, 4, 3),
}
HALF_ALONE = ("gelu", "tanh", "silu", "glu", "linear", "convolution")
"""Their kernels want weights of the dtype of their input."""


def build(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().eval()
    with torch.no_grad():
        for value in [*layer.parameters(), *layer.buffers()]:
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
        if name == "tanh":  # half precision keeps nothing of the input where tanh rounds to 1
            layer[0].weight *= 0.1
            layer[0].bias *= 0.1
    return layer


def computed(layer, x, autocast):
    """Return the input, layer(x) and the weights."""
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    return x, y, torch.linspace(-1, 2, y.numel(), dtype=torch.float64).reshape(y.shape)


def ordinary(layer, x, autocast):
    """Return the gradient of torch's own."""
    x, y, weight = computed(layer, x, autocast)
    return torch.autograd.grad(y, x, weight.to(y.dtype))[0]


def decomposed(layer, x, rules, autocast):
    """Return the gradient and the bias record of <layer(x), weights>, and the sum itself."""
    x, y, weight = computed(layer, x, autocast)
    record = BiasRecord()
    (gradient,) = grad(y, x, weight.to(y.dtype), rules=rules, on_bias=record)
    assert gradient.dtype == x.dtype
    parts = [(x.double() * gradient.double()), *(c.double() for c in record.contributions)]
    assert all(part.isfinite().all() for part in parts)
    output = (y.detach().double() * weight.to(y.dtype).double()).sum()
    return gradient, parts, output


def assert_close_in_half(name, x, layer, autocast, rules):
    gradient, parts, output = decomposed(layer, x, rules, autocast)
    exact, exact_parts, _ = decomposed(build(name).double(), x.double(), rules, autocast=False)
    size = exact.abs().max()
    # The sums of six elements that an instance norm forms in half precision nearly cancel.
    tolerance = (64 if name == "instance_norm" else 16) * BF16 * size
    if rules is PLAIN:  # as exact as torch itself, which has no kernel for RMSNorm before 2.9
        error = (ordinary(layer, x, autocast).double() - exact).abs().max()
        tolerance = torch.maximum(tolerance, error)
    assert (gradient.double() - exact).abs().max() <= tolerance
    assert len(parts) == len(exact_parts)
    magnitude = torch.stack([part.abs().sum() for part in parts]).sum()
    for part, expected in zip(parts, exact_parts, strict=True):
        assert abs(part.sum() - expected.sum()) <= 8 * BF16 * magnitude
    if rules is LIBRA:
        total = torch.stack([part.sum() for part in parts]).sum()
        assert abs(total - output) <= 8 * BF16 * magnitude


@pytest.mark.parametrize("rules", [LIBRA, PLAIN], ids=repr)
@pytest.mark.parametrize("name", LAYERS)
def test_autocast(name, rules):
    x = torch.randn(SHAPE)
    assert_close_in_half(name, x, build(name), True, rules)


@pytest.mark.parametrize("rules", [LIBRA, PLAIN], ids=repr)
@pytest.mark.parametrize("name", LAYERS)
def test_half_precision_input_under_autocast(name, rules):
    x = torch.randn(SHAPE).bfloat16()
    assert_close_in_half(name, x, build(name), True, rules)


@pytest.mark.parametrize("rules", [LIBRA, PLAIN], ids=repr)
@pytest.mark.parametrize("name", sorted(set(LAYERS) - set(HALF_ALONE)))
def test_norms_with_parameters_of_single_precision(name, rules):
    x = torch.randn(SHAPE).bfloat16()
    assert_close_in_half(name, x, build(name), False, rules)


@pytest.mark.parametrize("rules", [LIBRA, PLAIN], ids=repr)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LAYERS)
def test_everything_in_half_precision(name, dtype, rules):
    x = torch.randn(SHAPE).to(dtype)
    assert_close_in_half(name, x, build(name).to(dtype), False, rules)


@pytest.mark.parametrize("rules", RULE_SETS.values(), ids=repr)
def test_a_block_under_autocast(rules):
    torch.manual_seed(0)
    norm, qkv, proj, gate = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 8)
    x = torch.randn(2, 5, 8, requires_grad=True)

    def block(x):
        q, k, v = qkv(norm(x)).chunk(3, -1)
        x = x + proj(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0])
        return (x + gate(x).sigmoid() * F.gelu(proj(norm(x)))).mean()

    found = []
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = block(x)
        record = BiasRecord()
        (gradient,) = grad(output, x, rules=rules, on_bias=record)
        assert gradient.dtype == torch.float32
        found.append((gradient, record.total().float()))
    (exact, exact_total), (half, half_total) = found
    assert (half - exact).abs().max() <= 16 * BF16 * exact.abs().max()
    assert abs(half_total - exact_total) <= 0.05 * (1 + abs(exact_total))


def test_parameters_of_another_dtype_that_are_added_or_computed_with():
    x = torch.randn(3, 6).bfloat16().requires_grad_()
    p = torch.randn(6, requires_grad=True)
    for forward, added in (
        (lambda x: x + p, p),
        (lambda x: x + (p * p).bfloat16(), p * p),
        (lambda x: torch.where(x.detach() > 9, p, x.float()) + p.exp(), p.exp()),
        (lambda x: torch.cat([x.float(), p[None]]), p / 3),
    ):
        record = BiasRecord()
        grad(forward(x).float().sum(), x, on_bias=record)
        torch.testing.assert_close(
            record.total().float(), 3 * added.detach().sum(), rtol=0.02, atol=0
        )
