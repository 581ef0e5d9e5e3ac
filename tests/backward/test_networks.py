"""Random small networks: completeness under LIBRA, identity with autograd under PLAIN."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from backward_cases import SEEDS, fullgrad_sum
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from libragrad_lightning.backward import LIBRA, PLAIN, RULE_SETS, ConstantObserver, grad

B, T, D = 2, 4, 6
MANY = settings(deadline=None, max_examples=60, derandomize=True)


@dataclass
class Parameters:
    """Draws parameters that require gradients, so that every bias is recorded."""

    generator: torch.Generator

    def __call__(self, *shape: int) -> Tensor:
        value = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return (0.6 * value).requires_grad_()


Layer = Callable[[Tensor, Parameters], Tensor]


def linear(x, p, width=D):
    return F.linear(x, p(width, x.shape[-1]), p(width))


def gated_mlp(x, p):
    return linear(F.silu(linear(x, p)) * linear(x, p), p)


def mlp(activation):
    return lambda x, p: linear(activation(linear(x, p)), p)


def attention(x, p, backend=SDPBackend.FLASH_ATTENTION, mask=None):
    q, k, v = linear(x, p, 3 * D).reshape(B, -1, 3, 2, D // 2).permute(2, 0, 3, 1, 4).unbind(0)
    with sdpa_kernel(backend):
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return linear(y.transpose(1, 2).reshape(x.shape), p)


def relative_attention(x, p):
    return attention(x, p, SDPBackend.MATH, p(x.shape[1], x.shape[1]))


def attention_by_hand(x, p):
    q, k, v = linear(x, p, 3 * D).chunk(3, -1)
    return torch.baddbmm(p(D), (q @ k.transpose(1, 2) / D**0.5).softmax(-1), v)


def cosine_attention(x, p):
    q, k, v = linear(x, p, 3 * D).chunk(3, -1)
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(1, 2)
    return (scores * p(1).exp()).softmax(-1) @ v


def squeeze_excite(x, p):
    return x * torch.sigmoid(linear(F.relu(linear(x.mean(1, keepdim=True), p, 2)), p))


def group_norm(x, p):
    return F.group_norm(x.transpose(1, 2), 2, p(D), p(D)).transpose(1, 2)


def batch_norm(x, p):
    statistics = p(D).detach(), p(D).detach().abs() + 0.3
    return F.batch_norm(x.transpose(1, 2), *statistics, p(D), p(D)).transpose(1, 2)


def layer_norm_by_hand(x, p):
    variance, mean = torch.var_mean(x, -1, keepdim=True, correction=0)
    return torch.addcmul(p(D), (x - mean) * (variance + 1e-6).rsqrt(), p(D))


def convolution(x, p):
    return F.conv1d(x.transpose(1, 2), p(D, 2, 3), p(D), padding=1, groups=3).transpose(1, 2)


def global_response_norm(x, p):
    norm = x.norm(dim=1, keepdim=True)
    return x + torch.addcmul(p(D), p(D), x * (norm / (norm.mean(-1, keepdim=True) + 1e-6)))


def with_token(x, p):
    """Attend with one more token, then drop it."""
    return attention(torch.cat([p(1, 1, D).expand(B, -1, -1), x], 1), p)[:, 1:]


def self_product(x, p):
    return linear(x, p) * linear(x, p) * linear(x, p) / (1 + x.square().mean(-1, keepdim=True))


def moment(x, p):
    return (linear(x, p).square().mean(1, keepdim=True) + 0.1).sqrt().expand_as(x) - x * p(D)


LAYERS: dict[str, Layer] = {
    "linear": linear,
    "layer_scale": lambda x, p: x * p(D),
    "position": lambda x, p: x + p(T, D),
    "subtraction": lambda x, p: torch.sub(p(1, T, D), x, alpha=0.5),
    "layer_norm": lambda x, p: F.layer_norm(x, (D,), p(D), p(D)),
    "layer_norm_of_all": lambda x, p: F.layer_norm(x, (T, D), p(T, D), p(T, D)),
    "layer_norm_by_hand": layer_norm_by_hand,
    "group_norm": group_norm,
    "batch_norm": batch_norm,
    "rms_norm": lambda x, p: F.rms_norm(x, (D,), p(D)),
    "unit_vectors": lambda x, p: F.normalize(x, dim=-1),
    "response_norm": global_response_norm,
    "gelu": mlp(F.gelu),
    "gelu_tanh": mlp(lambda x: F.gelu(x, approximate="tanh")),
    "silu": mlp(F.silu),
    "hardswish": mlp(lambda x: F.hardswish(x.clone(), inplace=True)),
    "mish": mlp(F.mish),
    "elu": mlp(F.elu),
    "selu": mlp(F.selu),
    "relu6": mlp(lambda x: F.relu6(x.clone(), inplace=True)),
    "tanh": lambda x, p: torch.tanh(F.layer_norm(x, (D,), p(D), p(D))),
    "quick_gelu": mlp(lambda x: x * torch.sigmoid(1.702 * x)),
    "relu": mlp(lambda x: F.relu(x, inplace=True)),
    "gated_mlp": gated_mlp,
    "glu": lambda x, p: F.glu(linear(x, p, 2 * D)),
    "squeeze_excite": squeeze_excite,
    "attention": attention,
    "attention_math": lambda x, p: attention(x, p, SDPBackend.MATH),
    "attention_relative": relative_attention,
    "attention_by_hand": attention_by_hand,
    "attention_cosine": cosine_attention,
    "with_token": with_token,
    "convolution": convolution,
    "mixing": lambda x, p: linear(F.gelu(linear(x.transpose(1, 2), p, 8)), p, T).transpose(1, 2),
    "pooling": lambda x, p: F.avg_pool1d(x.transpose(1, 2), 3, 1, 1).transpose(1, 2) - x,
    "maximum": lambda x, p: torch.maximum(linear(x, p), x.roll(1, 1)),
    "self_product": self_product,
    "moment": moment,
    "added_gate": lambda x, p: x + torch.sigmoid(linear(x, p)),
}

NETWORKS = st.lists(
    st.tuples(st.sampled_from(sorted(LAYERS)), st.booleans()), min_size=1, max_size=6
)


def run(network, seed):
    """Return tokens [B, T, D], and the sum over images of one class's logit of a random network."""
    parameters = Parameters(torch.Generator().manual_seed(seed))
    tokens = parameters(B, T, D)
    h = tokens
    for name, residual in network:
        h = h + LAYERS[name](h, parameters) if residual else LAYERS[name](h, parameters)
    pooled = F.layer_norm(h, (D,), parameters(D), parameters(D)).mean(1)
    return tokens, linear(pooled, parameters, 3)[:, 1].sum()


def assert_complete(network, seed):
    with ConstantObserver():  # the numbers in the layers are constants too
        tokens, logit = run(network, seed)
    total, magnitude = fullgrad_sum(logit, [tokens], LIBRA)
    assert abs(total - logit).item() <= 1e-10 * magnitude.item()


@MANY
@given(NETWORKS, SEEDS)
def test_libra_is_complete_for_any_composition(network, seed):
    assert_complete(network, seed)


def test_every_layer_is_complete_alone_and_beside_a_residual():
    for name in LAYERS:
        assert_complete([(name, False)], 0)
        assert_complete([(name, True), ("linear", False), (name, True)], 1)


def test_most_layers_are_incomplete_under_ordinary_gradients():
    affine = {"linear", "layer_scale", "position", "subtraction", "batch_norm", "relu"}
    affine |= {"convolution", "pooling", "maximum"}
    for name in sorted(set(LAYERS) - affine):
        tokens, logit = run([(name, True)], 0)
        total, _ = fullgrad_sum(logit, [tokens], PLAIN)
        assert abs(total - logit) > 1e-6, name


@MANY
@given(NETWORKS, SEEDS)
def test_plain_is_autograd_bit_for_bit_for_any_composition(network, seed):
    tokens, logit = run(network, seed)
    (expected,) = torch.autograd.grad(logit, tokens, retain_graph=True)
    (got,) = grad(logit, tokens, rules=PLAIN, retain_graph=True)
    assert torch.equal(got, expected)
    (with_biases,) = grad(logit, tokens, rules=PLAIN, retain_graph=True, on_bias=lambda *_: None)
    assert torch.equal(with_biases, expected)


@MANY
@given(NETWORKS, SEEDS, st.sampled_from(sorted(RULE_SETS)))
def test_the_forward_pass_and_later_gradients_are_untouched(network, seed, name):
    with ConstantObserver():
        tokens, logit = run(network, seed)
    before, version = logit.detach().clone(), tokens._version
    (ordinary,) = torch.autograd.grad(logit, tokens, retain_graph=True)
    first, second = (
        grad(logit, tokens, rules=RULE_SETS[name], retain_graph=True, on_bias=lambda *_: None)[0]
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(torch.autograd.grad(logit, tokens)[0], ordinary)
    assert torch.equal(logit, before)
    assert torch.equal(run(network, seed)[1], before)
    assert tokens._version == version
    assert tokens.grad is None
