"""Eager attention is the same operation as the fused kernels, in three nodes."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, BiasRecord, check, fullgrad_sum, leaves, scaled
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from libragrad_lightning.backward import ATTN_LRP, LIBRA, PLAIN, RULE_SETS, Role, grad
from libragrad_lightning.backward.graph import annotate_graph
from libragrad_lightning.backward.rules import AttentionScores, AttentionSoftmax, WeightedSum

RULES = [
    *RULE_SETS.values(),
    LIBRA.without(Role.ATTENTION),
    LIBRA.without(Role.GATE),
    LIBRA.without(Role.PRODUCT, Role.GATE),
    LIBRA.without(Role.ATTENTION, Role.NORMALIZATION),
]


def fused(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def math(q, k, v):
    with sdpa_kernel(SDPBackend.MATH):
        return fused(q, k, v)


def eager(q, k, v):
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1) @ v


def eager_from_the_left(q, k, v):
    scores = k @ q.transpose(-2, -1) / q.shape[-1] ** 0.5
    return (v.transpose(-2, -1) @ scores.softmax(-2)).transpose(-2, -1)


def einsum(q, k, v):
    weights = torch.einsum("...qd,...kd->...qk", q, k).div(q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("...qk,...kd->...qd", weights, v)


def dropped(q, k, v):
    scores = torch.baddbmm(
        torch.zeros((), dtype=q.dtype),
        q.flatten(0, -3),
        k.flatten(0, -3).mT,
        alpha=q.shape[-1] ** -0.5,
    )
    weights = F.dropout(scores.softmax(-1), 0.1, training=False)
    return torch.bmm(weights, v.flatten(0, -3)).reshape(q.shape)


FORMS = [math, eager, eager_from_the_left, einsum, dropped]


class Block(nn.Module):
    """A transformer block whose attention is a function of q, k, v."""

    def __init__(self, attend, heads):
        super().__init__()
        self.attend, self.heads = attend, heads
        self.norm = nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x):
        b, n, _ = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.heads == 1:  # [B, N, D]
            qkv = qkv.squeeze(2)
        mixed = self.attend(*qkv.unbind(0))
        mixed = mixed if self.heads == 1 else mixed.transpose(1, 2).reshape(b, n, 8)
        x = x + self.proj(mixed)
        return x + self.mlp(x)


@pytest.mark.parametrize("rules", RULES, ids=repr)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("heads", [1, 2])
def test_every_form_gets_the_gradients_and_biases_of_the_fused_kernel(rules, form, heads):
    (x,) = leaves(0, (2, 5, 8))
    torch.manual_seed(1)
    blocks = [Block(fused, heads).double() for _ in range(2)]
    found = []
    for attend in (fused, form):
        for block in blocks:
            block.attend = attend
        output = blocks[1](blocks[0](x)).square().sum()
        record = BiasRecord()
        (gradient,) = grad(output, x, rules=rules, on_bias=record)
        found.append((gradient, record.total()))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rules", RULES, ids=repr)
@pytest.mark.parametrize("form", FORMS)
def test_a_pool_with_learned_queries_is_attention(rules, form):
    x, query, key, value = leaves(0, (2, 5, 8), (1, 1, 1, 8), (8, 8), (8, 8))
    gradients = []
    for attend in (fused, form):
        q = query.expand(2, 1, 3, 8) * 2
        k, v = (x @ key)[:, None], (x @ value)[:, None]
        gradients += grad(attend(q, k, v).square().sum(), x, rules=rules)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_an_unbatched_head_of_two_axes():
    q, k, v = leaves(0, (4, 6), (5, 6), (5, 6))
    reference = lambda q, k, v: eager(scaled(q, 0.25), scaled(k, 0.25), scaled(v, 0.5))  # noqa: E731
    check(eager, reference, [q, k, v], rules=ATTN_LRP)


def test_relative_positions_that_come_from_queries_share_the_weight_of_the_scores():
    q, k, v, table = leaves(0, (2, 4, 6), (2, 5, 6), (2, 5, 6), (6, 5))

    def attend(q, k, v):
        return (q @ k.mT + q @ table).softmax(-1) @ v

    check(
        attend,
        lambda q, k, v: attend(scaled(q, 0.25), scaled(k, 0.25), scaled(v, 0.5)),
        [q, k, v],
        rules=ATTN_LRP,
    )


def test_talking_heads_are_attention():
    q, k, v, mix, remix = leaves(0, (1, 2, 4, 6), (1, 2, 5, 6), (1, 2, 5, 6), (2, 2), (2, 2))

    def talk(scores, matrix):
        return F.linear(scores.permute(0, 2, 3, 1), matrix, matrix[0]).permute(0, 3, 1, 2)

    def attend(q, k, v):
        return talk(talk(q @ k.mT, mix).softmax(-1), remix) @ v

    check(
        attend,
        lambda q, k, v: attend(scaled(q, 0.25), scaled(k, 0.25), scaled(v, 0.5)),
        [q, k, v],
        rules=ATTN_LRP,
    )
    total, magnitude = fullgrad_sum(output := attend(q, k, v).square().sum(), [q, k, v])
    assert abs(total - output.detach()) <= 1e-13 * magnitude


def test_one_score_matrix_may_serve_two_averages():
    q, k, v, w = leaves(0, (2, 4, 6), (2, 5, 6), (2, 5, 6), (2, 5, 6))

    def attend(q, k, v, w):
        scores = q @ k.mT
        return scores.softmax(-1) @ v + (2 * scores).softmax(-1) @ w

    check(
        attend,
        lambda q, k, v, w: attend(scaled(q, 0.25), scaled(k, 0.25), scaled(v, 0.5), scaled(w, 0.5)),
        [q, k, v, w],
        rules=ATTN_LRP,
    )


NOT_ATTENTION = {
    "gate": lambda x, w: x * (x @ w).softmax(-1),
    "pool": lambda x, w: (x @ w[:, :1]).softmax(1).mT @ x,
    "channel_gate": lambda x, w: x * F.linear(x.mean(1, keepdim=True), w).softmax(-1),
    "experts": lambda x, w: ((x @ w).softmax(-1)[..., None] * torch.stack([x] * 6, -2)).sum(-2),
    "linear_attention": lambda x, w: x @ ((x @ w).softmax(1).mT @ x),
    "softmax_of_a_product_of_features": lambda x, w: x * ((x @ w) * x).softmax(-1),
    "sigmoid_attention": lambda x, w: (x @ x.mT).sigmoid() @ x,
}


@pytest.mark.parametrize("name", NOT_ATTENTION)
def test_other_softmaxes_get_the_rule_of_libra(name):
    x, w = leaves(0, (2, 5, 6), (6, 6))
    explained = x.detach().clone().requires_grad_()
    value = NOT_ATTENTION[name](explained, w)
    gradients = [
        grad(value.sum(), explained, rules=rules, retain_graph=True)[0]
        for rules in (LIBRA, ATTN_LRP)
    ]
    assert torch.equal(*gradients)
    assert gradients[0].any()


def test_a_pool_after_attention_is_none():
    x, w = leaves(0, (2, 5, 6), (6, 6))
    value = (eager(x, x, x) @ w[:, :1]).softmax(1).mT @ x
    parts = [
        type(a.operation)
        for a in annotate_graph([value], [x], ATTN_LRP).nodes
        if a.operation.role is Role.ATTENTION
    ]
    assert sorted(parts, key=str) == [AttentionScores, AttentionSoftmax, WeightedSum]


def test_the_parts_are_named_in_the_annotated_graph():
    q, k, v = leaves(0, (2, 4, 6), (2, 5, 6), (2, 5, 6))
    graph = annotate_graph([eager(q, k, v)], [q, k, v], LIBRA)
    parts = {
        type(a.operation): a.node.name() for a in graph.nodes if a.operation.role is Role.ATTENTION
    }
    assert parts == {
        AttentionScores: "BmmBackward0",
        AttentionSoftmax: "SoftmaxBackward0",
        WeightedSum: "BmmBackward0",
    }


@FEW
@given(SEEDS, st.sampled_from(FORMS), st.sampled_from([1, 2]))
def test_eager_attention_is_complete_under_libra(seed, form, heads):
    (x,) = leaves(seed, (2, 5, 8))
    torch.manual_seed(seed)
    output = nn.Sequential(*[Block(form, heads) for _ in range(2)]).double()(x).square().sum()
    total, magnitude = fullgrad_sum(output, [x])
    assert abs(total - output.detach()) <= 1e-13 * magnitude


@pytest.mark.parametrize("dead", ["values", "scores", "both"])
def test_attention_to_held_values_is_complete(dead):
    (x,) = leaves(0, (2, 5, 8))
    held = x.cos()
    q = held if dead in ("scores", "both") else x
    v = held if dead in ("values", "both") else x
    for attend in (fused, math, eager):
        output = (x + attend(q, q, v)).square().sum()
        total, magnitude = fullgrad_sum(output, [x])
        assert abs(total - output.detach()) <= 1e-13 * magnitude


def test_attention_to_constant_values_is_a_held_value():
    x, memory = leaves(0, (2, 5, 8), (2, 3, 8))
    for values in (memory, memory.detach()):
        for attend in (fused, math, eager):
            output = (x + attend(x, memory, values)).square().sum()
            total, magnitude = fullgrad_sum(output, [x])
            assert abs(total - output.detach()) <= 1e-13 * magnitude


def test_fused_attention_with_constant_weights_is_a_linear_map():
    q, k, v = leaves(0, (2, 4, 6), (2, 5, 6), (2, 5, 6))
    for attend in (fused, math, eager):
        value = attend(q, k, v)
        cotangent = torch.randn_like(value)
        gradients = [
            grad(value, v, cotangent, rules=rules, retain_graph=True)[0]
            for rules in (PLAIN, LIBRA, ATTN_LRP)
        ]
        torch.testing.assert_close(gradients[1:], [gradients[0]] * 2, rtol=1e-12, atol=1e-12)


class Passing(nn.Module):
    """Hands its first argument on; a hook on it sees both."""

    def forward(self, weights, other):
        return weights * 1.0


@pytest.mark.parametrize("place", ["scores", "weights"])
def test_modules_with_backward_hooks_may_lie_between(place):
    q, k, v = leaves(0, (2, 4, 6), (2, 4, 6), (2, 4, 6))

    def attend(module):
        used = {"scores": lambda w, _: w, "weights": lambda w, _: w} | {place: module}
        scores = used["scores"](q @ k.mT, q @ v.mT)
        return (used["weights"](scores.softmax(-1), q @ v.mT) @ v).square().sum()

    hooked = Passing()
    hooked.register_full_backward_hook(lambda *_: None)
    expected = grad(attend(lambda w, _: w), [q, k, v], rules=ATTN_LRP)
    found = grad(attend(hooked), [q, k, v], rules=ATTN_LRP)
    assert all(map(torch.equal, found, expected))
    assert not torch.equal(expected[0], grad(attend(lambda w, _: w), [q, k, v])[0])
