"""Eager attention and its eager softmax get the maps of the fused kernel."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import fullgrad_sum, leaves
from softmax_cases import SOFTMAX, by_maximum, gradient_and_biases
from torch import nn

from libragrad_lightning.backward import (
    ALI_LRP,
    ATTN_LRP,
    DECOMPX,
    LIBRA,
    PLAIN,
    ConstantObserver,
    grad,
)
from libragrad_lightning.backward.attention_watch import AttentionWatch

RULES = [PLAIN, LIBRA, ATTN_LRP, ALI_LRP, DECOMPX]


def fused(q, k, v):
    groups = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(groups, 1) for t in (k, v))
    return F.scaled_dot_product_attention(q, k, v)


def eager_with(softmax):
    def attend(q, k, v):
        groups = q.shape[1] // k.shape[1]
        k, v = (t.repeat_interleave(groups, 1) for t in (k, v))
        return softmax(q @ k.mT * q.shape[-1] ** -0.5) @ v

    return attend


def grouped_einsum(q, k, v):
    b, h, n, d = q.shape
    q = q.reshape(b, k.shape[1], -1, n, d)
    weights = torch.einsum("bghqd,bgkd->bghqk", q / d**0.5, k).softmax(-1)
    return torch.einsum("bghqk,bgkd->bghqd", weights, v).reshape(b, h, n, d)


def grouped_expand(q, k, v):
    b, h, _, d = q.shape
    shape = (b, k.shape[1], h // k.shape[1], k.shape[2], d)
    k, v = (t[:, :, None].expand(shape).reshape(b, h, -1, d) for t in (k, v))
    return torch.matmul(torch.matmul(q, k.transpose(2, 3)).div(d**0.5).softmax(-1), v)


def grouped_kernel(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def flat_products(q, k, v):
    (b, h, n, d), groups = q.shape, q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(groups, 1).flatten(0, 1) for t in (k, v))
    scores = torch.baddbmm(torch.zeros(1, dtype=q.dtype), q.flatten(0, 1), k.mT, alpha=d**-0.5)
    return torch.bmm(by_maximum(scores), v).reshape(b, h, n, d)


ATTENTION = {
    **{softmax.__name__: eager_with(softmax) for softmax in SOFTMAX},
    "grouped_einsum": grouped_einsum,
    "grouped_expand": grouped_expand,
    "grouped_kernel": grouped_kernel,
    "flat_products": flat_products,
}


class Attention(nn.Module):
    """Two layers of self-attention whose heads share keys and values."""

    def __init__(self, attend, heads):
        super().__init__()
        self.attend, self.heads = attend, heads
        self.q, self.kv, self.out = (
            nn.Linear(8, 8),
            nn.Linear(8, 2 * 8 * heads // 4),
            nn.Linear(8, 8),
        )

    def forward(self, x):
        for _ in range(2):
            q = self.q(x).unflatten(-1, (4, 2)).transpose(1, 2)
            k, v = self.kv(x).unflatten(-1, (2, self.heads, 2)).permute(2, 0, 3, 1, 4)
            x = x + self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))
        return x


@pytest.mark.parametrize("rules", RULES, ids=repr)
@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("heads", [4, 2, 1])
def test_attention(name, rules, heads):
    (x,) = leaves(0, (2, 5, 8))
    torch.manual_seed(0)
    model = Attention(fused, heads).double()
    expected = gradient_and_biases(model, x, rules)
    model.attend = ATTENTION[name]
    found = gradient_and_biases(model, x, rules)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("rules", RULES, ids=repr)
@pytest.mark.parametrize("softmax", SOFTMAX)
@pytest.mark.parametrize("use", ["gate", "added", "pool"])
def test_a_softmax_that_is_no_attention(softmax, rules, use):
    x, weight = leaves(0, (2, 5, 8), (8, 8))
    uses = {
        "gate": lambda s, x: x * s(x @ weight),
        "added": lambda s, x: x + s(x @ weight),
        "pool": lambda s, x: s((x @ weight[:, :1]).mT) @ x,
    }
    builtin = gradient_and_biases(lambda x: uses[use](lambda z: z.softmax(-1), x), x, rules)
    found = gradient_and_biases(lambda x: uses[use](softmax, x), x, rules)
    torch.testing.assert_close(found[0], builtin[0], rtol=1e-10, atol=1e-12)
    if rules is not PLAIN:
        torch.testing.assert_close(found[1], builtin[1], rtol=1e-10, atol=1e-12)


def test_what_looks_like_a_softmax_and_is_none():
    q, k, v = leaves(0, (2, 4, 6), (2, 5, 6), (2, 5, 6))
    forms = [
        lambda s: s.exp() / (2 * s).exp().sum(-1, keepdim=True),
        lambda s: s.exp() / s.sum(-1, keepdim=True),
        lambda s: (e := s.exp()).square() / e.sum(-1, keepdim=True),
        lambda s: ((e := s.exp()) + s) / e.sum(-1, keepdim=True),
        lambda s: s.sigmoid() / s.sigmoid().sum(-1, keepdim=True),
        lambda s: (s - s.mean(-1, keepdim=True)).exp(),
    ]
    for form in forms:
        value = (form(q @ k.mT) @ v).sum()
        libra, attn_lrp = (
            grad(value, [q, k, v], rules=rules, retain_graph=True) for rules in (LIBRA, ATTN_LRP)
        )
        assert all(map(torch.equal, libra, attn_lrp))


@pytest.mark.parametrize("rules", RULES, ids=repr)
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("bias_kv", [False, True])
def test_multi_head_attention(rules, need_weights, bias_kv):
    """nn.MultiheadAttention with either of its paths, against the fused kernel."""
    (x,) = leaves(0, (2, 5, 8))
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=bias_kv).double().eval()
    nn.init.normal_(layer.in_proj_bias)

    def builtin(x):
        q, k, v = F.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1)
        if bias_kv:
            k, v = (
                torch.cat([t, b.expand(2, 1, 8)], 1)
                for t, b in ((k, layer.bias_k), (v, layer.bias_v))
            )
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return layer.out_proj(mixed.transpose(1, 2).flatten(2))

    expected = gradient_and_biases(builtin, x, rules)
    found = gradient_and_biases(lambda x: layer(x, x, x, need_weights=need_weights)[0], x, rules)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted(set(ATTENTION) - {"grouped_kernel"}))
def test_eager_attention_is_complete(name):
    (x,) = leaves(0, (2, 5, 8))
    torch.manual_seed(0)
    model = Attention(ATTENTION[name], 2).double()
    with ConstantObserver():
        output = model(x).square().sum()
    total, magnitude = fullgrad_sum(output, [x])
    assert abs(total - output.detach()) <= 1e-13 * magnitude
    total, _ = fullgrad_sum(output, [x], ATTN_LRP)
    assert abs(total - output.detach()) > 1e-3


@pytest.mark.parametrize("softmax", SOFTMAX)
def test_the_weights_are_reported(softmax):
    (x,) = leaves(0, (2, 5, 8))
    torch.manual_seed(0)
    model = Attention(fused, 2).double()
    found = []
    for attend in (fused, eager_with(softmax)):
        model.attend = attend
        seen = []
        watch = AttentionWatch(lambda site, *parts, seen=seen: seen.extend(parts))
        grad(model(x).square().sum(), x, watch=[watch])
        found.append([part.reshape(2, 4, 5, 5) for part in seen])
    assert len(found[0]) == 4
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)
