"""Input gradients of the fused normalisations when the statistics that scale are constants.

``y = gamma * (x - mean(x)) * rstd + beta`` with a constant ``rstd`` is affine in x (section 3.4):
the gradient is scaled, and centred where the mean was subtracted.
"""

from __future__ import annotations

from torch import Tensor

from libragrad_lightning.backward.operations import ConstantOf, Node


def layer_norm_gradient(node: Node, gradient: Tensor) -> Tensor:
    """Return dF/dx of a LayerNorm with constant standard deviation, in the shape of x."""
    axes = tuple(range(-len(node._saved_normalized_shape), 0))
    weight: Tensor | None = node._saved_weight
    scaled = gradient if weight is None else gradient * weight
    scaled = scaled * node._saved_result2.to(scaled.dtype)
    return scaled - scaled.mean(axes, keepdim=True)


def rms_norm_gradient(node: Node, gradient: Tensor) -> Tensor:
    """Return dF/dx of an RMSNorm with a constant root mean square."""
    weight: Tensor | None = node._saved_weight
    scaled = gradient if weight is None else gradient * weight
    return scaled * node._saved_result1.to(scaled.dtype)


def group_norm_gradient(node: Node, gradient: Tensor) -> Tensor:
    """Return dF/dx of a GroupNorm with constant standard deviations."""
    samples, groups = int(node._saved_N), int(node._saved_group)
    weight: Tensor | None = node._saved_weight
    scaled = gradient if weight is None else gradient * _per_channel(weight, gradient)
    rows = scaled.reshape(samples, groups, -1)
    rows = rows * node._saved_result2.to(rows.dtype).reshape(samples, groups, 1)
    return (rows - rows.mean(-1, keepdim=True)).reshape(gradient.shape)


def layer_norm_bias(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """Return beta of a LayerNorm, in its normalised shape."""
    return constant_of(2)


def channel_bias(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """Return a bias over channels, broadcastable to [B, C, ...]."""
    bias = constant_of(2)
    if bias is None:
        return None
    trailing = len(node._input_metadata[0].shape) - 2
    return bias.reshape(-1, *[1] * trailing)


def batch_norm_bias(node: Node, constant_of: ConstantOf) -> Tensor:
    """Return beta - gamma * mean / std of a BatchNorm in evaluation mode, per channel.

    Besides beta, the running mean acts as an implicit bias (FullGrad, Srinivas & Fleuret 2019,
    section 3).
    """
    rstd = (node._saved_running_var + node._saved_eps).rsqrt()
    weight: Tensor | None = node._saved_weight
    implicit = -node._saved_running_mean * rstd
    if weight is not None:
        implicit = implicit * weight.detach()
    beta = constant_of(2)
    total = implicit if beta is None else implicit + beta
    return total.reshape(-1, *[1] * (len(node._input_metadata[0].shape) - 2))


def _per_channel(weight: Tensor, like: Tensor) -> Tensor:
    return weight.reshape(-1, *[1] * (like.dim() - 2))
