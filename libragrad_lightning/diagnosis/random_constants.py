"""Draws all constants of a model at random.

Random weights test an identity between an output and its decomposition as well as trained weights
do, provided that no constant is trivial (biases, running means and scales are all drawn at random)
and that the activations stay of order one, so that no term vanishes beside the others.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)
_MAPS = (nn.Linear, nn.modules.conv._ConvNd)


def draw_constants(model: nn.Module, images: Tensor) -> None:
    """Draw parameters and running statistics at random, in place.

    Args:
        model: The model, in evaluation mode.
        images: `[B, 3, H, W]`, for the scale of the running statistics.
    """
    with torch.no_grad():
        for module in model.modules():
            for label, parameter in module.named_parameters(recurse=False):
                _draw(module, label, parameter)
        _calibrate(model, images)


def _draw(module: nn.Module, label: str, parameter: Tensor) -> None:
    noise = torch.randn_like(parameter)
    if isinstance(module, _MAPS) and parameter.dim() > 1:
        parameter.copy_(noise / math.sqrt(max(1, parameter[0].numel())))
    elif label.endswith("bias"):
        parameter.copy_(0.2 * noise)
    elif isinstance(module, _NORMS) or _is_constant(parameter, 1.0):
        parameter.copy_(1 + 0.1 * noise)
    elif _is_scale(label):
        parameter.copy_(0.5 + 0.1 * noise)
    else:
        parameter.add_(0.1 * noise)


def _is_constant(parameter: Tensor, value: float) -> bool:
    return bool((parameter == value).all())


def _is_scale(label: str) -> bool:
    return label.startswith(("gamma", "layer_scale", "ls", "scale"))


def _calibrate(model: nn.Module, images: Tensor) -> None:
    """Draw the running statistics of batch norms about those of the values that reach them.

    Statistics drawn without regard to the values let the signal of a deep network die out or grow
    without bound, and then any decomposition looks complete.
    """
    handles = [
        module.register_forward_pre_hook(_draw_statistics)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None
    ]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()


def _draw_statistics(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    axes = [axis for axis in range(arguments[0].dim()) if axis != 1]
    variance, mean = torch.var_mean(arguments[0], axes, correction=0)
    assert isinstance(module.running_mean, Tensor)
    assert isinstance(module.running_var, Tensor)
    spread = (variance + 0.05).sqrt()
    module.running_mean.copy_(mean + 0.2 * spread * torch.randn_like(mean))
    module.running_var.copy_(spread**2 * (0.5 + torch.rand_like(mean)))
