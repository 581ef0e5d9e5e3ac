"""Norms that are composed of several operations get the maps of the functions that they are."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import leaves
from softmax_cases import gradient_and_biases

from libragrad_lightning.backward import ALI_LRP, ATTN_LRP, DECOMPX, LIBRA, PLAIN

RULES = [PLAIN, LIBRA, ATTN_LRP, ALI_LRP, DECOMPX]
EPS = 1e-5


def centered(x):
    return x - x.mean(-1, keepdim=True)


def layer_norm(x):
    return F.layer_norm(x, (8,), eps=EPS)


def rms_norm(x):
    return F.rms_norm(x, (8,), eps=EPS)


NORMS = {
    "layer_rsqrt": (
        lambda x: centered(x) * torch.rsqrt(x.var(-1, keepdim=True, correction=0) + EPS),
        layer_norm,
    ),
    "layer_sqrt": (
        lambda x: centered(x) / (x.var(-1, keepdim=True, unbiased=False) + EPS).sqrt(),
        layer_norm,
    ),
    "layer_squares": (
        lambda x: (c := centered(x)) / (c.pow(2).mean(-1, keepdim=True) + EPS) ** 0.5,
        layer_norm,
    ),
    "layer_products": (
        lambda x: (c := centered(x)) * ((c * c).mean(-1, keepdim=True) + EPS) ** -0.5,
        layer_norm,
    ),
    "layer_var_mean": (
        lambda x: (
            (x - (s := torch.var_mean(x, -1, keepdim=True, correction=0))[1])
            / torch.sqrt(s[0] + EPS)
        ),
        layer_norm,
    ),
    "layer_moments": (
        lambda x: (
            centered(x)
            * ((x * x).mean(-1, True) - x.mean(-1, True).square() + EPS).sqrt().reciprocal()
        ),
        layer_norm,
    ),
    "rms_rsqrt": (
        lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS),
        rms_norm,
    ),
    "rms_division": (
        lambda x: x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS),
        rms_norm,
    ),
    "rms_float": (
        lambda x: (x.double() * (x.square().mean(-1, True) + EPS).pow(-0.5)).to(x.dtype),
        rms_norm,
    ),
    "unit_length": (
        lambda x: x / x.pow(2).sum(-1, keepdim=True).sqrt().clamp(min=1e-12),
        lambda x: F.normalize(x, dim=-1),
    ),
    "unit_length_norm": (
        lambda x: x / x.norm(dim=-1, keepdim=True),
        lambda x: F.normalize(x, dim=-1),
    ),
}


@pytest.mark.parametrize("rules", RULES, ids=repr)
@pytest.mark.parametrize("name", NORMS)
def test_norms(name, rules):
    x, *layers = leaves(0, (2, 3, 8), (8, 8), (8,), (8, 8))

    def model(norm):
        return lambda x: F.linear(norm(F.linear(x, *layers[:2])), layers[2], layers[1])

    found = [gradient_and_biases(model(norm), x, rules) for norm in NORMS[name]]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-10, atol=1e-12)
    if rules is not PLAIN:  # the eps that is added is a bias of ordinary gradients
        torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-10, atol=1e-12)
