"""Fused normalizations: the statistics that scale are held constant, the mean is linear.

The gradient of a normalization adds up to nothing, as its value does not depend on the scale of x
(Prop 3). ``y = gamma * (x - mean(x)) * rstd + beta`` with a constant ``rstd`` is affine in x
(section 3.4): the gradient is scaled, and centered where the mean was subtracted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from libragrad_lightning.backward.errors import TrainingStatisticsError
from libragrad_lightning.backward.graph import (
    ConstantOf,
    Correction,
    Flow,
    Node,
    Operation,
    Role,
    shape_of,
)
from libragrad_lightning.backward.rules.product import divided_weights


@dataclass(frozen=True)
class Normalization(Operation):
    """A normalization of an operand by its own statistics, scaled by another operand.

    Attributes:
        input_gradient: dF/dx with constant statistics, from the node and the gradient of its
            output.
        operand: The edge of what is normalized.
        scale: The edge of gamma, None if there is none.
    """

    role: ClassVar[Role] = Role.NORMALIZATION

    input_gradient: Callable[[Node, Tensor], Tensor]
    operand: int = 0
    scale: int | None = 1

    @property
    def factor_edges(self) -> tuple[int, ...]:
        """The operand, then the scale."""
        return (self.operand,) if self.scale is None else (self.operand, self.scale)


@dataclass(frozen=True)
class BatchNormalization(Normalization):
    """A normalization by running statistics, or by those of one sample."""

    # torch 2.13 on CPU: wrong for one sample, a channels-last gradient and a contiguous input.
    needs_contiguous: ClassVar[bool] = True

    def check(self, node: Node) -> None:
        """Refuse statistics that mix samples.

        Raises:
            TrainingStatisticsError: If samples were normalized by the statistics of their batch.
        """
        if node._saved_training and node._saved_input.shape[0] > 1:
            raise TrainingStatisticsError(
                f"A batch norm used the statistics of a batch of {node._saved_input.shape[0]}, "
                "which mix the samples to be explained; call `model.eval()` before the forward "
                "pass."
            )


def stop_statistics(operation: Normalization, node: Node, flows: Sequence[Flow]) -> Correction:
    """Differentiate a normalization with the statistics that scale held constant (section 3.4).

    A scale that depends on the explained tensors too is a second factor (Thm 4).
    """
    source, *scales = operation.factor_edges
    scales = [i for i in scales if flows[i] is not Flow.CONSTANT]
    scale_alone = flows[source] is not Flow.LIVE and any(flows[i] is Flow.LIVE for i in scales)
    if flows[source] is Flow.CONSTANT or scale_alone:
        return Correction.ordinary(flows)

    def rewrite(node: Node, ordinary: Tensor, outgoing: Tensor) -> Tensor:
        return operation.input_gradient(node, outgoing)

    weights = divided_weights([source, *scales], flows) if scales else (1.0,) * len(flows)
    return Correction(weights, rewrite, source)


def layer_norm_gradient(node: Node, gradient: Tensor) -> Tensor:
    """Return dF/dx of a LayerNorm with constant standard deviation, in the shape of x."""
    axes = tuple(range(-len(node._saved_normalized_shape), 0))
    scaled = _scaled(gradient, node._saved_weight, node._saved_result2)
    return scaled.sub_(scaled.mean(axes, keepdim=True))


def rms_norm_gradient(node: Node, gradient: Tensor) -> Tensor:
    """Return dF/dx of an RMSNorm with a constant root mean square."""
    return _scaled(gradient, node._saved_weight, node._saved_result1)


def _scaled(gradient: Tensor, weight: Tensor | None, scale: Tensor) -> Tensor:
    """Return gradient * weight * scale in a new tensor."""
    if weight is None:
        return gradient * scale.to(gradient.dtype)
    scaled = gradient * weight
    return scaled.mul_(scale.to(scaled.dtype))


def group_norm_gradient(node: Node, gradient: Tensor) -> Tensor:
    """Return dF/dx of a GroupNorm with constant standard deviations."""
    samples, groups = int(node._saved_N), int(node._saved_group)
    weight: Tensor | None = node._saved_weight
    scaled = gradient if weight is None else gradient * _per_channel(weight, gradient)
    rows = scaled.reshape(samples, groups, -1)
    rows = rows * node._saved_result2.to(rows.dtype).reshape(samples, groups, 1)
    return (rows - rows.mean(-1, keepdim=True)).reshape(gradient.shape)


def layer_norm_bias(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """Return beta of a LayerNorm, in its normalized shape."""
    return constant_of(2)


def channel_bias(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """Return a bias over channels, broadcastable to [B, C, ...]."""
    bias = constant_of(2)
    if bias is None:
        return None
    trailing = len(shape_of(node)) - 2
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
    trailing = len(shape_of(node)) - 2
    implicit = implicit.reshape(-1, *[1] * trailing)
    return implicit if beta is None else implicit + beta


def _running_scale(node: Node) -> Tensor:
    # cuDNN and MIOpen record the constant under another name.
    eps: float = node._saved_eps if hasattr(node, "_saved_eps") else node._saved_epsilon
    return (node._saved_running_var + eps).rsqrt()


def _per_channel(weight: Tensor, like: Tensor) -> Tensor:
    return weight.reshape(-1, *[1] * (like.dim() - 2))
