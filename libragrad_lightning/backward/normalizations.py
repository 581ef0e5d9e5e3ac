"""Input gradients of the fused normalisations when the statistics that scale are constants.

``y = gamma * (x - mean(x)) * rstd + beta`` with a constant ``rstd`` is affine in x (section 3.4):
the gradient is scaled, and centred where the mean was subtracted.
"""

from __future__ import annotations

from torch import Tensor

from libragrad_lightning.backward.errors import TrainingStatisticsError
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


def batch_norm_gradient(node: Node, gradient: Tensor) -> Tensor:
    """Return dF/dx of a BatchNorm with constant standard deviations.

    With running statistics this is the ordinary gradient. With statistics of the one sample at hand
    (an InstanceNorm is recorded so) the mean is linear in x.
    """
    weight: Tensor | None = node._saved_weight
    scaled = gradient if weight is None else gradient * _per_channel(weight, gradient)
    if not node._saved_training:
        return scaled * _per_channel(_running_scale(node), gradient)
    scaled = scaled * _per_channel(node._saved_result2.to(scaled.dtype), gradient)
    return scaled - scaled.mean([0, *range(2, scaled.dim())], keepdim=True)


def batch_norm_bias(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """Return what a BatchNorm adds, per channel: beta - gamma * mean / std.

    Besides beta, a running mean acts as an implicit bias (FullGrad, Srinivas & Fleuret 2019,
    section 3); the mean of the sample itself does not. Where gamma is a live factor too, its
    gradient counts the mean already: by half beside the input, and in full beside a constant.
    """
    beta = channel_bias(node, constant_of)
    (source, _), (scale, _) = node.next_functions[:2]
    live_scale = scale is not None and constant_of(1) is None
    if node._saved_training or (live_scale and source is None):
        return beta
    weight: Tensor | None = node._saved_weight
    implicit = -node._saved_running_mean * _running_scale(node)
    if weight is not None:
        implicit = implicit * weight.detach() * (0.5 if live_scale else 1.0)
    trailing = len(node._input_metadata[0].shape) - 2
    implicit = implicit.reshape(-1, *[1] * trailing)
    return implicit if beta is None else implicit + beta


def check_batch_norm(node: Node) -> None:
    """Refuse statistics that mix samples.

    Raises:
        TrainingStatisticsError: If samples were normalised by the statistics of their batch.
    """
    if node._saved_training and node._saved_input.shape[0] > 1:
        raise TrainingStatisticsError(
            f"A batch norm used the statistics of a batch of {node._saved_input.shape[0]}, which "
            "mix the samples to be explained; call `model.eval()` before the forward pass."
        )


def _running_scale(node: Node) -> Tensor:
    # cuDNN and MIOpen record the constant under another name.
    eps: float = node._saved_eps if hasattr(node, "_saved_eps") else node._saved_epsilon
    return (node._saved_running_var + eps).rsqrt()


def _per_channel(weight: Tensor, like: Tensor) -> Tensor:
    return weight.reshape(-1, *[1] * (like.dim() - 2))
