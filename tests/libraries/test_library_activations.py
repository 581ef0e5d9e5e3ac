"""Activations that libraries write out get the maps of the kernels that they are."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import activations as timm_activations
from transformers.activations import ACT2FN

from libragrad_lightning.backward import RULE_SETS, grad


def gelu_tanh(x):
    return F.gelu(x, approximate="tanh")


def quick_gelu(x):
    return F.silu(1.702 * x) / 1.702


WRITTEN = {
    "gelu_new": (ACT2FN["gelu_new"], gelu_tanh),
    "gelu_fast": (ACT2FN["gelu_fast"], gelu_tanh),
    "gelu_accurate": (ACT2FN["gelu_accurate"], gelu_tanh),
    "gelu_python": (ACT2FN["gelu_python"], F.gelu),
    "quick_gelu": (ACT2FN["quick_gelu"], quick_gelu),
    "timm_quick_gelu": (timm_activations.quick_gelu, quick_gelu),
    "timm_swish": (timm_activations.swish, F.silu),
    "timm_mish": (timm_activations.mish, F.mish),
    "timm_hard_swish": (timm_activations.hard_swish, F.hardswish),
    "timm_hard_swish_in_place": (
        lambda x: timm_activations.hard_swish(x.clone(), inplace=True),
        F.hardswish,
    ),
}


@pytest.mark.parametrize("rules", RULE_SETS.values(), ids=repr)
@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_function_gets_the_same_map(name, rules):
    x = torch.linspace(-5, 5, 40, dtype=torch.float64, requires_grad=True)
    gradients = [grad(phi(x).sum(), x, rules=rules)[0] for phi in WRITTEN[name]]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-11)
