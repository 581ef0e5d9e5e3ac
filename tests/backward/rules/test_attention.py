"""Attention: the weights are constants, the values are live; fused or not, masked or not."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, check, leaves, scaled
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from libragrad_lightning.backward import ALI_LRP, ATTN_LRP, DECOMPX, LIBRA, PLAIN, Role, grad


def runs_here(backend):
    query = torch.randn(1, 1, 2, 4, dtype=torch.float64, requires_grad=True)
    try:
        with sdpa_kernel(backend):
            F.scaled_dot_product_attention(query, query, query)
    except RuntimeError:
        return False
    return True


BACKENDS = [
    backend
    for name, backend in SDPBackend.__members__.items()
    if name != "ERROR" and runs_here(backend)
]
MASKS = ["none", "additive", "boolean"]


def draw_mask(kind, queries, keys):
    if kind == "none":
        return None
    scores = torch.randn(queries, keys, dtype=torch.float64)
    if kind == "additive":
        return scores
    return (scores > 0).index_fill_(1, torch.tensor([0]), True)  # no row without a key


def fused(backend, mask, **options):
    def attend(q, k, v):
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options)

    return attend


def weights_of(q, k, mask):
    """Softmax of q k^T / sqrt(d) over the keys, written out with sums."""
    logits = (q.unsqueeze(-2) * k.unsqueeze(-3)).sum(-1) / q.shape[-1] ** 0.5
    if mask is not None:
        additive = mask.is_floating_point()
        logits = logits + mask if additive else logits.masked_fill(~mask, -torch.inf)
    exponentials = (logits - logits.detach().amax(-1, keepdim=True)).exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def average(weights, v):
    return (weights.unsqueeze(-1) * v.unsqueeze(-3)).sum(-2)


def libra_attention(mask):
    return lambda q, k, v: average(weights_of(q, k, mask).detach(), v)


def attn_lrp_attention(mask):
    return lambda q, k, v: average(
        weights_of(scaled(q, 0.25), scaled(k, 0.25), mask), scaled(v, 0.5)
    )


def plain_attention(mask):
    return lambda q, k, v: average(weights_of(q, k, mask), v)


def each_backend():
    return pytest.mark.parametrize("backend", [pytest.param(b, id=b.name) for b in BACKENDS])


SHAPES = {"b": st.integers(1, 2), "heads": st.integers(1, 3), "n": st.integers(1, 5)}


@each_backend()
@pytest.mark.parametrize("kind", MASKS)
@FEW
@given(seed=SEEDS, keys=st.integers(1, 5), **SHAPES)
def test_queries_and_keys_get_no_gradient(backend, kind, seed, b, heads, n, keys):
    torch.manual_seed(seed)
    mask = draw_mask(kind, n, keys)
    q, k, v = leaves(seed, (b, heads, n, 4), (b, heads, keys, 4), (b, heads, keys, 4))
    for rules in (LIBRA, ALI_LRP, DECOMPX):
        check(fused(backend, mask), libra_attention(mask), [q, k, v], rules=rules)
    for rules in (PLAIN, LIBRA.without(Role.ATTENTION)):
        check(fused(backend, mask), plain_attention(mask), [q, k, v], rules=rules)


@each_backend()
@pytest.mark.parametrize("kind", MASKS)
@FEW
@given(seed=SEEDS, keys=st.integers(2, 5), **SHAPES)
def test_attn_lrp_weighs_queries_keys_and_values(backend, kind, seed, b, heads, n, keys):
    torch.manual_seed(seed)
    mask = draw_mask(kind, n, keys)
    q, k, v = leaves(seed, (b, heads, n, 4), (b, heads, keys, 4), (b, heads, keys, 4))
    check(fused(backend, mask), attn_lrp_attention(mask), [q, k, v], rules=ATTN_LRP)


@each_backend()
def test_causal_attention_with_a_scale_of_its_own(backend):
    q, k, v = leaves(0, (2, 2, 4, 4), (2, 2, 4, 4), (2, 2, 4, 4))
    mask = torch.ones(4, 4).tril().bool()
    check(
        fused(backend, None, is_causal=True, scale=0.5),
        libra_attention(mask),
        [q, k, v],
    )


@each_backend()
@FEW
@given(seed=SEEDS, b=st.integers(1, 2), n=st.integers(1, 4))
def test_self_attention_of_one_tensor_keeps_the_value_path(backend, seed, b, n):
    x, qkv, proj = leaves(seed, (b, n, 6), (18, 6), (6, 6))

    def heads(x):
        return (x @ qkv.T).reshape(b, n, 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(attend):
        return lambda x: attend(*heads(x)).transpose(1, 2).reshape(b, n, 6) @ proj.T

    check(forward(fused(backend, None)), forward(libra_attention(None)), [x])


def test_multihead_attention_module_needs_no_rule_of_its_own():
    torch.manual_seed(0)
    module = nn.MultiheadAttention(6, 2, batch_first=True, dtype=torch.float64)
    query, memory = leaves(0, (2, 3, 6), (2, 5, 6))

    def held(query, memory):
        _, weights = module(query, memory, memory, average_attn_weights=False)
        values = F.linear(memory, module.in_proj_weight[12:], module.in_proj_bias[12:])
        values = values.unflatten(2, (2, 3)).transpose(1, 2)
        mixed = average(weights.detach(), values).transpose(1, 2).flatten(2)
        return module.out_proj(mixed)

    for need_weights in (False, True):
        check(
            lambda q, m, need=need_weights: module(q, m, m, need_weights=need)[0],
            held,
            [query, memory],
        )


def test_a_live_mask_gets_no_gradient():
    q, k, v, mask = leaves(0, (1, 1, 3, 4), (1, 1, 3, 4), (1, 1, 3, 4), (3, 3))
    value = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    gradients = grad(value.sum(), [q, k, v, mask])
    assert [bool(g.any()) for g in gradients] == [False, False, True, False]


def test_the_fused_kernel_of_the_cpu_is_among_the_backends():
    assert SDPBackend.FLASH_ATTENTION in BACKENDS
    assert SDPBackend.MATH in BACKENDS
