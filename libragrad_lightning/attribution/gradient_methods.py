"""Attribution methods that need features and gradients alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from libragrad_lightning.attribution.capture import Captured

_RANDOM_SEED = 81


def input_x_gradient(captured: Captured) -> Tensor:
    """Input x gradient at z0: sum_c h_0 g_0 (Shrikumar et al. 2016)."""
    return captured.input_x_gradient(0)


def input_x_gradient_plus(captured: Captured) -> Tensor:
    """Input x gradient summed over all levels: sum_l sum_c h_l g_l."""
    return _over_levels(captured, captured.input_x_gradient)


def input_x_gradient_skip_plus(captured: Captured) -> Tensor:
    """SkipPLUS: input x gradient summed over the second half of the levels, l >= L // 2."""
    return _over_levels(captured, captured.input_x_gradient, _half(captured))


def input_x_gradient_mean(captured: Captured) -> Tensor:
    """Input x gradient, mean over all levels.

    Called FullGrad+ in the authors' notebook on language models: it adds up to the output if the
    model has no biases.
    """
    return input_x_gradient_plus(captured) / len(captured.features)


def saliency(captured: Captured) -> Tensor:
    """The L2 norm over channels of dF/dz0 (Simonyan et al. 2014)."""
    return captured.gradients[0].norm(dim=-1)


def hirescam(captured: Captured) -> Tensor:
    """HiResCAM: input x gradient at the input of the last block (Draelos & Carin 2020)."""
    return _at_last(captured, captured.input_x_gradient)


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


def fullgrad_skip_plus(captured: Captured) -> Tensor:
    """FullGrad+ over the second half of the levels, with the biases there."""
    return input_x_gradient_skip_plus(captured) + captured.token_biases[_half(captured)]


def fullgrad_over_levels(captured: Captured) -> Tensor:
    """FullGrad of every level, summed: a bias in block l counts l + 1 times."""
    return input_x_gradient_plus(captured) + captured.token_biases.sum(0)


def gradcam(captured: Captured) -> Tensor:
    """GradCAM at the last level, without ReLU: sum_c mean_t(g) h (Selvaraju et al. 2017)."""
    return _at_last(captured, lambda level: _gradcam_at(captured, level))


def gradcam_plus(captured: Captured) -> Tensor:
    """GradCAM summed over all levels."""
    return _over_levels(captured, lambda level: _gradcam_at(captured, level))


def gradcam_skip_plus(captured: Captured) -> Tensor:
    """GradCAM summed over the second half of the levels."""
    return _over_levels(captured, lambda level: _gradcam_at(captured, level), _half(captured))


def xgradcam(captured: Captured) -> Tensor:
    """XGradCAM at the last level: channel weights sum_t g |h| / sum_t |h| (Fu et al. 2020)."""
    return _at_last(captured, lambda level: _xgradcam_at(captured, level))


def xgradcam_plus(captured: Captured) -> Tensor:
    """XGradCAM summed over all levels."""
    return _over_levels(captured, lambda level: _xgradcam_at(captured, level))


def xgradcam_skip_plus(captured: Captured) -> Tensor:
    """XGradCAM summed over the second half of the levels."""
    return _over_levels(captured, lambda level: _xgradcam_at(captured, level), _half(captured))


def random(captured: Captured) -> Tensor:
    """Uniform noise in [0, 1), the baseline of all comparisons; an image has always the same."""
    features = captured.features[0]
    drawn = [
        torch.rand(features.shape[1], generator=g) for g in captured.passes.generators(_RANDOM_SEED)
    ]
    return torch.stack(drawn).to(features)


def _half(captured: Captured) -> int:
    return len(captured.features) // 2


def _over_levels(captured: Captured, at_level: Callable[[int], Tensor], start: int = 0) -> Tensor:
    levels = range(start, len(captured.features))
    return torch.stack([captured.on_first_level(i, at_level(i)) for i in levels]).sum(0)


def _at_last(captured: Captured, at_level: Callable[[int], Tensor]) -> Tensor:
    last = len(captured.features) - 1
    return captured.on_first_level(last, at_level(last))


def _gradcam_at(captured: Captured, level: int) -> Tensor:
    weights = captured.gradients[level].mean(1, keepdim=True)
    return (weights * captured.features[level]).sum(-1)


def _xgradcam_at(captured: Captured, level: int) -> Tensor:
    features, gradients = captured.features[level], captured.gradients[level]
    size = features.abs()
    weights = (gradients * size).sum(1, keepdim=True) / (size.sum(1, keepdim=True) + 1e-7)
    return (weights * features).sum(-1)
