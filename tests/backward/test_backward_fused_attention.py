"""What the nodes of fused attention tell: its weights, and a linear map of the values."""

import pytest
import torch
import torch.nn.functional as F

from libragrad_lightning.backward import ATTN_LRP, grad
from libragrad_lightning.backward.attention_watch import AttentionWatch

OPTIONS = {
    "plain": {},
    "a scale of its own": {"scale": 0.3},
    "causal": {"is_causal": True},
    "causal with a scale": {"is_causal": True, "scale": 0.3},
    "masked": {"attn_mask": torch.arange(12.0, dtype=torch.float64).view(3, 4).sin()},
}


def drawn(*shape):
    return torch.randn(2, 2, *shape, dtype=torch.float64)


def written_out(query, key, scale=None, is_causal=False, attn_mask=None):
    """Softmax of scaled scores, entry by entry."""
    size = query.shape[-1]
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) * (size**-0.5 if scale is None else scale)
    if is_causal:
        queries, keys = scores.shape[-2:]
        for q in range(queries):
            scores[..., q, q + 1 : keys] = -torch.inf
    if attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_weights_of_a_fused_kernel_are_told(name):
    options = OPTIONS[name]
    query, key, value = drawn(3, 4), drawn(4, 4), drawn(4, 4)
    value.requires_grad_()
    output = F.scaled_dot_product_attention(query, key, value, **options)
    seen = []
    watch = AttentionWatch(lambda site, weights, gradient: seen.append((weights, gradient)))
    incoming = torch.randn_like(output)
    grad(output, [value], incoming, watch=[watch])
    ((weights, gradient),) = seen
    torch.testing.assert_close(weights, written_out(query, key, **options))
    torch.testing.assert_close(gradient, incoming @ value.detach().transpose(-2, -1))


def test_constant_queries_and_keys_make_attention_a_linear_map_of_the_values():
    query, key = drawn(3, 4), drawn(4, 4)
    value = drawn(4, 4).requires_grad_()
    output = F.scaled_dot_product_attention(query, key, value)
    (gradient,) = grad(output.sum(), [value], rules=ATTN_LRP)
    torch.testing.assert_close((gradient * value).sum(), output.sum())
