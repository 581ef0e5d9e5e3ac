"""Single layers against the authors' code: values, gradients, bias maps and attention, float64."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_cases import arrays, relative_difference
from golden_weights import param_array
from timm.layers import AttentionPoolLatent, GluMlp, Mlp, SwiGLU
from timm.models.vision_transformer import Attention
from torch import nn

from libragrad_lightning.attribution.biases import BiasLedger
from libragrad_lightning.backward import LIBRA, PLAIN, Role, WeighAttention, grad
from libragrad_lightning.backward.attention_watch import AttentionWatch
from libragrad_lightning.models import Axes, FeatureView

NORM = partial(nn.LayerNorm, eps=1e-6)
RULES = {
    "none": PLAIN,
    "None": PLAIN,
    "libra": LIBRA,
    "LX1": LIBRA,
    "libra_noDU": LIBRA.without(Role.PRODUCT),
    "D2": PLAIN.overridden({Role.ATTENTION: WeighAttention(0.25, 0.5)}, "attention_lrp"),
}
LAYERS = {
    "layernorm": ("ln", lambda: NORM(16)),
    "gelu": ("", nn.GELU),
    "silu": ("", nn.SiLU),
    "mlp": ("mlp", lambda: Mlp(16, 24)),
    "glu_gatelast": ("glu_gatelast", lambda: GluMlp(16, 24, act_layer=nn.SiLU)),
    "glu_gatefirst": (
        "glu_gatefirst",
        lambda: GluMlp(16, 24, act_layer=nn.SiLU, gate_last=False),
    ),
    "glu_gatefirst_norm": (
        "glu_gatefirst_norm",
        lambda: GluMlp(16, 24, act_layer=nn.SiLU, gate_last=False, norm_layer=NORM),
    ),
    "swiglu": ("swiglu", lambda: SwiGLU(16, 24)),
    "swiglu_norm": ("swiglu_norm", lambda: SwiGLU(16, 24, norm_layer=NORM)),
    "attn": ("attn", lambda: Attention(16, num_heads=2, qkv_bias=True)),
    "attnpool": ("pool", lambda: AttentionPoolLatent(16, num_heads=2, norm_layer=NORM)),
    "linear_DS": ("lin", lambda: nn.Linear(16, 8)),
    "conv_DS": ("conv", lambda: nn.Conv2d(3, 8, 4, 4)),
}
INPUTS = {"attnpool": ("x", "up2"), "linear_DS": ("x", "up8"), "conv_DS": ("img", "up_img")}
GOLDEN = arrays("ops")
CASES = sorted(
    {tuple(k.split("/")[:2]) for k in GOLDEN if k.split("/")[0] in LAYERS}
    & {(op, mode) for op in LAYERS for mode in RULES}
)


def layer(op):
    prefix, build = LAYERS[op]
    module = build().double().eval()
    for name, p in module.named_parameters():
        p.data = torch.from_numpy(param_array(f"{prefix}.{name}", p.shape)).double()
    return module


def given(name):
    return torch.from_numpy(GOLDEN[f"in/{name}"]).double()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("op", "mode"), CASES)
def test_layers_are_those_of_the_authors(op, mode, fused):
    module = layer(op)
    if hasattr(module, "fused_attn"):
        module.fused_attn = fused
    names = INPUTS.get(op, ("x", "up"))
    x = given(names[0]).requires_grad_()
    y = module(x)
    ledger = BiasLedger(2, [FeatureView(Axes.TOKENS, (1, 5))])
    seen = []
    watch = AttentionWatch(lambda _, weights, gradients: seen.append((weights, gradients)))
    (gx,) = grad(y, x, given(names[1]), rules=RULES[mode], on_bias=ledger, watch=[watch])
    golden = {k.removeprefix(f"{op}/{mode}/"): v for k, v in GOLDEN.items()}
    assert relative_difference(y.detach().numpy(), golden["y"]) < 1e-13
    assert relative_difference(gx.numpy(), golden["gx"]) < 1e-12
    for name, value in zip(("A", "dA"), seen[0] if seen else (), strict=False):
        if name in golden:
            heads = value.detach().view(2, 2, *value.shape[-2:])
            assert relative_difference(heads.numpy(), golden[name]) < 1e-12
    # The pooling query depends on parameters alone: its bias is a factor and adds to nothing.
    maps = {k: v for k, v in golden.items() if k.startswith("bam/") and k != "bam/q"}
    per_token = sum((v for v in maps.values() if v.shape[1] == 5), np.zeros((2, 5)))
    per_image = sum((v[:, 0] for v in maps.values() if v.shape[1] == 1), np.zeros(2))
    if op == "attn":
        assert ("A" in golden) <= bool(seen)
    if maps:
        assert np.abs(ledger.on_tokens(gx)[0].numpy() - per_token).max() < 1e-12
        assert np.abs(ledger.on_images(gx)[0].numpy() - per_image).max() < 1e-12


@pytest.mark.parametrize("mode", ["None", "LX1"])
def test_unit_vectors_are_those_of_the_authors(mode):
    x = given("vec").requires_grad_()
    y = F.normalize(x, dim=-1)
    (gx,) = grad(y, x, given("up_vec"), rules=RULES[mode])
    assert relative_difference(y.detach().numpy(), GOLDEN[f"n2u/{mode}/y"]) < 1e-13
    assert relative_difference(gx.numpy(), GOLDEN[f"n2u/{mode}/gx"]) < 1e-12


def test_the_gradient_of_a_probability_is_that_of_the_authors():
    x = given("logits").requires_grad_()
    y = x.softmax(-1)
    (gx,) = grad(y, x, given("up_logits"), rules=PLAIN)
    assert relative_difference(y.detach().numpy(), GOLDEN["head_softmax/none/y"]) < 1e-13
    assert relative_difference(gx.numpy(), GOLDEN["head_softmax/none/gx"]) < 1e-12
