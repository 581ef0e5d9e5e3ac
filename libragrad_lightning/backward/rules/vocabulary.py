"""The table of operations: what each name that autograd records means in the theory.

The one place where names of operations stand; whoever looks for operations of a kind asks for their
facts, so that entries of one's own count as those here do.

Names are those of `torch.autograd.graph.Node.name` without the number of the overload, unless
overloads play different roles. One that is not here is reported, never passed over in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.backward.graph import Elementwise, Function, Operation, Vocabulary
from libragrad_lightning.backward.rules import (
    activation,
    attention,
    distances,
    gate,
    hidden_write,
    linear,
    normalization,
    power,
    product,
    quotient,
    weighting,
)
from libragrad_lightning.backward.rules.activation import Activation, GatedUnit, Ratio
from libragrad_lightning.backward.rules.gate import FunctionOfSelf, Gate, Statistic
from libragrad_lightning.backward.rules.linear import Identity, Linear, Movement
from libragrad_lightning.backward.rules.normalization import BatchNormalization, Normalization
from libragrad_lightning.backward.rules.power import Power
from libragrad_lightning.backward.rules.product import (
    Convolution,
    ElementwiseProduct,
    MatrixProduct,
    Product,
)
from libragrad_lightning.backward.rules.quotient import Quotient
from libragrad_lightning.backward.rules.weighting import Weighting

_SUM, _PROPORTIONAL, _CURVED = Elementwise.SUM, Elementwise.PROPORTIONAL, Elementwise.CURVED
_PICK, _ARRANGE, _JOIN, _PUT = Movement.PICK, Movement.ARRANGE, Movement.JOIN, Movement.PUT


def _named(names: str | Iterable[str], operation: Operation) -> dict[str, Operation]:
    words = names.split() if isinstance(names, str) else names
    return {f"{name}Backward": operation for name in words}


def _ratio(function: Callable[[Tensor], Tensor], slope_at_zero: float = 1.0) -> Activation:
    """Return the activation phi(x) = x * (phi(x) / x) that keeps its operand."""
    return Activation(Ratio(function, slope_at_zero), value=FunctionOfSelf(function))


def _gate_of(
    function: Callable[[Tensor], Tensor], elementwise: Elementwise | None = _CURVED
) -> Gate:
    """Return the gate that keeps its operand."""
    return Gate(value=FunctionOfSelf(function), elementwise=elementwise)


# Piecewise linear maps of one operand, and rearrangements (Cor 1). Max and its relatives select.
_PLAIN = """
AdaptiveAvgPool2D AdaptiveAvgPool3D AdaptiveMaxPool2D AdaptiveMaxPool3D AffineGridGenerator
Amax Amin AsStrided AvgPool2D AvgPool3D ChannelShuffle Col2Im Cummax Cumsum Diagonal Embedding
FftC2C FftC2R FftR2C Flip FractionalMaxPool2D Im2Col Kthvalue Lift Max
MaxPool2DWithIndices MaxPool3DWithIndices Mean Median Min MkldnnMaxPool2D PixelShuffle
PixelUnshuffle ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D
ReplicationPad3D Roll Rot90 RreluWithNoise Sort Take Topk Trace Tril Triu Unfold
UpsampleBicubic2D UpsampleBicubic2DAa UpsampleBilinear2D UpsampleBilinear2DAa UpsampleLinear1D
UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact1D UpsampleNearestExact2D
UpsampleNearestExact3D UpsampleTrilinear3D ViewAsComplex ViewAsReal
"""

_REARRANGEMENTS = "Expand Permute Repeat Select Slice Split SplitWithSizes T Transpose Unbind"
_RESHAPES = "ReshapeAlias Squeeze UnsafeView Unsqueeze View"

_LINEAR: dict[str, Operation] = {
    **_named(_PLAIN, Linear()),
    **_named(_REARRANGEMENTS, Linear(movement=_ARRANGE)),
    **_named(_RESHAPES, Linear(movement=_ARRANGE, keeps_order=True)),
    **_named("UnsafeSplit UnsafeSplitWithSizes", Linear()),
    **_named("Abs Alias Relu ToCopy", Linear(elementwise=_PROPORTIONAL)),
    "CloneBackward": Linear(elementwise=_PROPORTIONAL, movement=_ARRANGE),
    "LeakyReluBackward": Linear(elementwise=_PROPORTIONAL, in_place=("leaky_relu", "leaky_relu_")),
    "NegBackward": Linear(elementwise=_PROPORTIONAL, in_place=("neg_", "negative_")),
    **_named("Hardshrink NanToNum", Linear(elementwise=_CURVED)),
    "SumBackward": Linear(function=Function.REDUCTION),
    **_named("Gather Index IndexSelect MaskedSelect", Linear(movement=_PICK)),
    **_named("Cat Stack", Linear(hides_constants=True, movement=_JOIN)),
    "ConstantPadNdBackward": Linear(hides_constants=True, movement=_ARRANGE),
    "IndexCopyBackward": Linear(hides_constants=True, movement=_PUT, in_place=("index_copy_",)),
    "IndexAddBackward": Linear(hides_constants=True, movement=_PUT, in_place=("index_add_",)),
    "IndexPutBackward": Linear(
        hides_constants=True, movement=_PUT, in_place=("index_put_", "__setitem__")
    ),
    "MaskedScatterBackward": Linear(
        hides_constants=True, movement=_PUT, in_place=("masked_scatter_",)
    ),
    "ScatterBackward": Linear(hides_constants=True, movement=_PUT, in_place=("scatter_",)),
    "ScatterAddBackward": Linear(hides_constants=True, movement=_PUT, in_place=("scatter_add_",)),
    **_named("SelectScatter SliceScatter", Linear(hides_constants=True, movement=_PUT)),
    **_named("Complex DiagonalScatter", Linear(hides_constants=True)),
    "IndexFillBackward": Linear(hides_constants=True, in_place=("index_fill_",)),
    "MaskedFillBackward": Linear(
        hides_constants=True, elementwise=_SUM, in_place=("masked_fill_", "fill_", "zero_")
    ),
    "WhereBackward": Linear(hides_constants=True, elementwise=_SUM),
    "CopyBackward": Linear(hides_constants=True, in_place=("copy_",)),
    "torch::autograd::CopyBackwards": Linear(),
    "torch::autograd::CopySlices": Linear(applies=hidden_write.is_affine_write),
    # Records that a module has backward hooks.
    "BackwardHookFunctionBackward": Identity(),
    # Records that FSDP2 spreads the weights of a module again once gradients have passed it.
    "RegisterPostBackwardFunctionBackward": Identity(),
}

_SUMS: dict[str, Operation] = {
    "AddBackward": Linear(
        additive=linear.constant_of_sum,
        hides_constants=True,
        elementwise=_SUM,
        in_place=("add_",),
    ),
    "SubBackward": Linear(
        additive=linear.constant_of_difference,
        hides_constants=True,
        elementwise=_SUM,
        function=Function.DIFFERENCE,
        in_place=("sub_", "subtract_"),
    ),
    "RsubBackward": Linear(hides_constants=True, elementwise=_SUM),
    "MaximumBackward": Linear(additive=linear.maximum_offset, elementwise=_SUM),
    "MinimumBackward": Linear(additive=linear.minimum_offset, elementwise=_SUM),
    "ThresholdBackward": Linear(
        additive=linear.threshold_offset, elementwise=_CURVED, function=Function.THRESHOLD
    ),
    **_named(
        "Cdist EuclideanDist",
        Linear(
            additive=distances.constant_points,
            applies=distances.is_distance,
            value=gate.saved_result,
        ),
    ),
    # Overloads whose other operand is a Python number have one edge.
    **dict.fromkeys(
        ("AddBackward1", "SubBackward1"), Linear(hides_constants=True, elementwise=_SUM)
    ),
    **dict.fromkeys(
        ("MulBackward1", "DivBackward1", "DivBackward3"), Linear(elementwise=_PROPORTIONAL)
    ),
    "LerpBackward0": Linear(hides_constants=True, elementwise=_SUM),
    # Bounds that are tensors; those that are numbers are among the activations.
    **dict.fromkeys(
        ("ClampBackward0", "ClampMinBackward1", "ClampMaxBackward1"),
        Linear(additive=linear.bounds_offset, elementwise=_CURVED, function=Function.CLAMP),
    ),
}

# Bounded or normalized weights, and functions without an affine part.
_GATES: dict[str, Operation] = {
    **_named("SafeSoftmax Softmax", Gate(value=gate.saved_result, function=Function.SOFTMAX)),
    "LogSoftmaxBackward": Gate(value=gate.saved_result, function=Function.LOG_SOFTMAX),
    "LogsumexpBackward": Gate(value=gate.saved_result, function=Function.LOGSUMEXP),
    "ExpBackward": Gate(value=gate.saved_result, function=Function.EXP, elementwise=_CURVED),
    **_named("Exp2 Sigmoid", Gate(value=gate.saved_result, elementwise=_CURVED)),
    "CosBackward": _gate_of(torch.cos),
    "ErfcBackward": _gate_of(torch.erfc),
    "HardsigmoidBackward": _gate_of(F.hardsigmoid),
    "LogBackward": _gate_of(torch.log),
    "Log10Backward": _gate_of(torch.log10, None),
    "Log2Backward": _gate_of(torch.log2, None),
    "LogSigmoidBackward": _gate_of(F.logsigmoid),
    "LogaddexpBackward": Gate(value=gate.logaddexp_value, elementwise=_CURVED),
    "SoftplusBackward": Gate(value=gate.softplus_value, elementwise=_CURVED),
    "PowBackward2": Gate(value=gate.saved_result, elementwise=_CURVED),
    **_named("Ceil Floor Round Sign Trunc", Gate(function=Function.STEP)),
}

# Scales of composed normalizations: constant in the backward pass.
_STATISTICS: dict[str, Operation] = {
    **_named("LinalgVectorNorm Norm Std", Statistic(value=gate.saved_result)),
    "ReciprocalBackward": Statistic(
        value=gate.saved_result, elementwise=_CURVED, function=Function.RECIPROCAL
    ),
    "RsqrtBackward": Statistic(value=gate.saved_result, elementwise=_CURVED),
    "VarBackward": Statistic(value=gate.variance),
    # The variance or deviation scales; the mean that comes with it is linear.
    **_named("VarMean StdMean", Statistic((1,))),
}

_PRODUCTS: dict[str, Operation] = {
    "MulBackward": ElementwiseProduct(elementwise=_PROPORTIONAL),
    "PreluKernelBackward": Product(elementwise=_PROPORTIONAL),
    **_named("Dot Mv", Product()),
    "TrilinearBackward": Product((0, 1, 2)),
    "MmBackward": MatrixProduct(),
    "BmmBackward": MatrixProduct(batched=True, saved_factors=product.batched_factors),
    "AddmmBackward": MatrixProduct((1, 2), additive=product.scaled_addend),
    "BaddbmmBackward": MatrixProduct(
        (1, 2), additive=product.scaled_addend, batched=True, saved_factors=product.added_factors
    ),
    "AddmvBackward": Product((1, 2), additive=product.scaled_addend),
    "AddcmulBackward": Product((1, 2), additive=product.plain_addend),
    "ConvolutionBackward": Convolution(additive=normalization.channel_bias),
}

_CLAMP = Activation(
    activation.clamp_gate,
    additive=activation.clamp_offset,
    function=Function.CLAMP,
    in_place=("clamp_", "clamp_max_", "clamp_min_", "clip_"),
)

_ACTIVATIONS: dict[str, Operation] = {
    "GeluBackward": Activation(activation.gelu_gate, owns_gate=True),
    "SiluBackward": Activation(activation.silu_gate, owns_gate=True),
    "HardswishBackward": Activation(activation.hardswish_gate, owns_gate=True),
    "MishBackward": Activation(activation.mish_gate, owns_gate=True),
    "EluBackward": Activation(activation.elu_gate),
    "CeluBackward": Activation(activation.celu_gate),
    "GluBackward": GatedUnit(activation.glu_gradient),
    "TanhBackward": Activation(activation.tanh_gate, value=gate.saved_result),
    "AsinhBackward": _ratio(torch.asinh),
    "AtanBackward": _ratio(torch.atan),
    "ErfBackward": _ratio(torch.erf, 2 / math.sqrt(math.pi)),
    "Log1PBackward": _ratio(torch.log1p),
    "SinBackward": _ratio(torch.sin),
    "SinhBackward": _ratio(torch.sinh),
    "Expm1Backward": Activation(activation.expm1_gate, value=gate.saved_result),
    "SoftshrinkBackward": Activation(activation.softshrink_gate),
    "HardtanhBackward": Activation(
        activation.clamp_gate, in_place=("hardtanh", "hardtanh_", "relu6", "relu6_")
    ),
    **dict.fromkeys(("ClampBackward1", "ClampMinBackward0", "ClampMaxBackward0"), _CLAMP),
}

# Query, key, value, mask.
_ATTENTION = _named(
    """
    ScaledDotProductFlashAttention ScaledDotProductFlashAttentionForCpu
    ScaledDotProductEfficientAttention ScaledDotProductCudnnAttention
    ScaledDotProductFusedAttentionOverrideable
    """,
    attention.FusedAttention(value=attention.saved_output),
)

_NORMALIZATIONS: dict[str, Operation] = {
    "NativeLayerNormBackward": Normalization(
        normalization.layer_norm_gradient, additive=normalization.layer_norm_bias
    ),
    "NativeGroupNormBackward": Normalization(
        normalization.group_norm_gradient, additive=normalization.channel_bias
    ),
    "FusedRmsNormBackward": Normalization(normalization.rms_norm_gradient),
    **_named(
        "NativeBatchNorm CudnnBatchNorm MiopenBatchNorm",
        BatchNormalization(
            normalization.batch_norm_gradient, additive=normalization.batch_norm_bias
        ),
    ),
}

_QUOTIENTS_AND_POWERS: dict[str, Operation] = {
    "DivBackward": Quotient(value=quotient.quotient_value, elementwise=_PROPORTIONAL),
    "PowBackward0": Power(power.exponent, value=power.power_value, elementwise=_PROPORTIONAL),
    "PowBackward1": Power(power.exponents, value=power.power_value, elementwise=_PROPORTIONAL),
    "SqrtBackward": Power(power.square_root_degree, elementwise=_PROPORTIONAL),
    "ProdBackward": Power(power.number_of_factors),
}

# Combinations and samples with weights, or at places, that may depend on the input.
_WEIGHTINGS: dict[str, Operation] = {
    "LerpBackward1": Weighting((0, 1), additive=weighting.constant_end, elementwise=_SUM),
    **_named("GridSampler2D GridSampler3D", Weighting((0,))),
}

VOCABULARY = Vocabulary(
    {
        **_LINEAR,
        **_SUMS,
        **_GATES,
        **_STATISTICS,
        **_PRODUCTS,
        **_ACTIVATIONS,
        **_ATTENTION,
        **_NORMALIZATIONS,
        **_QUOTIENTS_AND_POWERS,
        **_WEIGHTINGS,
    }
)
"""What PyTorch records, by role; `graph.versions` says which releases were read."""
