"""Attribution methods: small functions from captured material to token attributions `[B, T]`.

All maps are signed; prefix tokens are included and come first. h_l and g_l are the features and
gradients of level l = 0 ... L - 1, A_l and dA_l the attention and its gradient. Formulas as in the
experiments of Mehri et al. 2025, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.attribution.capture import Captured
from libragrad_lightning.backward import LibraGradError

Method: TypeAlias = Callable[[Captured], Tensor]
"""Captured material to token attributions `[B, T]`."""

_READS_ATTENTION = "reads_attention"


def reads_attention(method: Method) -> Method:
    """Mark a method that needs `Captured.attention`; use it as a decorator."""
    vars(method)[_READS_ATTENTION] = True
    return method


def needs_attention(method: Method) -> bool:
    """Return whether attention matrices must be captured for a method."""
    return getattr(method, _READS_ATTENTION, False)


def input_x_gradient(captured: Captured) -> Tensor:
    """Input x gradient at z0: sum_c h_0 g_0 (Shrikumar et al. 2016)."""
    return captured.input_x_gradient(0)


def input_x_gradient_plus(captured: Captured) -> Tensor:
    """Input x gradient summed over all levels: sum_l sum_c h_l g_l."""
    return _over_levels(captured, captured.input_x_gradient)


def saliency(captured: Captured) -> Tensor:
    """The L2 norm over channels of dF/dz0 (Simonyan et al. 2014)."""
    return captured.gradients[0].norm(dim=-1)


def hirescam(captured: Captured) -> Tensor:
    """HiResCAM: input x gradient at the input of the last block (Draelos & Carin 2020)."""
    return captured.input_x_gradient(len(captured.features) - 1)


def fullgrad(captured: Captured) -> Tensor:
    """FullGrad at z0: input x gradient plus the bias attribution map.

    Complete under `LIBRA` up to the biases that belong to no token (Srinivas & Fleuret 2019;
    Mehri et al. 2025, def. 1).
    """
    return captured.input_x_gradient(0) + captured.token_biases[0]


def fullgrad_plus(captured: Captured) -> Tensor:
    """FullGrad+: input x gradient summed over all levels, plus the biases once.

    sum_l sum_c h_l g_l + sum_b b * dF/dy_b (Mehri et al. 2025, section 2.1).
    """
    return input_x_gradient_plus(captured) + captured.token_biases[0]


def fullgrad_over_levels(captured: Captured) -> Tensor:
    """FullGrad of every level, summed: a bias in block l counts l + 1 times."""
    return input_x_gradient_plus(captured) + captured.token_biases.sum(0)


def gradcam(captured: Captured) -> Tensor:
    """GradCAM at the last level, without ReLU: sum_c mean_t(g) h (Selvaraju et al. 2017)."""
    return _gradcam_at(captured, len(captured.features) - 1)


def gradcam_plus(captured: Captured) -> Tensor:
    """GradCAM summed over all levels."""
    return _over_levels(captured, lambda level: _gradcam_at(captured, level))


def xgradcam(captured: Captured) -> Tensor:
    """XGradCAM at the last level: channel weights sum_t g |h| / sum_t |h| (Fu et al. 2020)."""
    return _xgradcam_at(captured, len(captured.features) - 1)


def xgradcam_plus(captured: Captured) -> Tensor:
    """XGradCAM summed over all levels."""
    return _over_levels(captured, lambda level: _xgradcam_at(captured, level))


@reads_attention
def attcat(captured: Captured) -> Tensor:
    """AttCAT: sum_{l < L-1} mean(A_l, heads and queries) sum_c h_{l+1} g_{l+1} (Qiang 2022)."""
    received = [attention.weights.mean((1, 2)) for attention in captured.attention]
    levels = range(len(captured.features) - 1)
    return torch.stack([received[i] * captured.input_x_gradient(i + 1) for i in levels]).sum(0)


@reads_attention
def raw_attention(captured: Captured) -> Tensor:
    """RawAtt: the class token's row of the last attention, mean over heads."""
    return _class_row(captured, captured.attention[-1].weights.mean(1))


@reads_attention
def attention_rollout(captured: Captured) -> Tensor:
    """Attention Rollout: the product of A_l / 2 + I / 2, mean over heads (Abnar & Zuidema 2020)."""
    return _rollout(captured, [attention.weights.mean(1) for attention in captured.attention])


@reads_attention
def genatt(captured: Captured) -> Tensor:
    """GenAtt: rollout of mean_heads ReLU(A_l dA_l) (Chefer et al. 2021b).

    Not linear in the gradient: use the reward `probability` to match the paper.
    """
    return _rollout(captured, _positive_products(captured))


@reads_attention
def gradsam(captured: Captured) -> Tensor:
    """Grad-SAM: the class token's row of sum_l mean_heads ReLU(A_l dA_l) (Barkan et al. 2021)."""
    return _class_row(captured, torch.stack(_positive_products(captured)).sum(0))


def _over_levels(captured: Captured, at_level: Callable[[int], Tensor]) -> Tensor:
    return torch.stack([at_level(level) for level in range(len(captured.features))]).sum(0)


def _gradcam_at(captured: Captured, level: int) -> Tensor:
    weights = captured.gradients[level].mean(1, keepdim=True)
    return (weights * captured.features[level]).sum(-1)


def _xgradcam_at(captured: Captured, level: int) -> Tensor:
    features, gradients = captured.features[level], captured.gradients[level]
    size = features.abs()
    weights = (gradients * size).sum(1, keepdim=True) / (size.sum(1, keepdim=True) + 1e-7)
    return (weights * features).sum(-1)


def _positive_products(captured: Captured) -> list[Tensor]:
    return [(a.weights * a.gradients).relu().mean(1) for a in captured.attention]


def _rollout(captured: Captured, matrices: list[Tensor]) -> Tensor:
    identity = torch.eye(matrices[0].shape[-1], dtype=matrices[0].dtype, device=matrices[0].device)
    product = identity.expand_as(matrices[0])
    for matrix in matrices:
        product = 0.5 * (matrix + identity) @ product
    return _class_row(captured, product)


def _class_row(captured: Captured, matrix: Tensor) -> Tensor:
    if captured.num_prefix_tokens == 0:
        raise LibraGradError(
            "This method reads the class token's row of the attention, but the model has no class "
            "token; choose another `method`, such as 'attcat' or 'fullgrad_plus'."
        )
    return matrix[:, 0]


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "attcat": attcat,
        "attention_rollout": attention_rollout,
        "fullgrad": fullgrad,
        "fullgrad_over_levels": fullgrad_over_levels,
        "fullgrad_plus": fullgrad_plus,
        "genatt": genatt,
        "gradcam": gradcam,
        "gradcam_plus": gradcam_plus,
        "gradsam": gradsam,
        "hirescam": hirescam,
        "input_x_gradient": input_x_gradient,
        "input_x_gradient_plus": input_x_gradient_plus,
        "raw_attention": raw_attention,
        "saliency": saliency,
        "xgradcam": xgradcam,
        "xgradcam_plus": xgradcam_plus,
    }
)
"""The methods that can be named in a configuration file."""


def attribution_method(method: str | Method) -> Method:
    """Return the method of that name, or the function itself.

    Raises:
        ValueError: If there is no method of that name.
    """
    if callable(method):
        return method
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; `method` takes one of {sorted(METHODS)}.")
    return METHODS[method]
