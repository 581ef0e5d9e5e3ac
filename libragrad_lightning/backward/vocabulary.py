"""The table of operations: what each name that autograd records means in the theory.

Grouped by role. The names are those of `torch.autograd.graph.Node.name` without the number of the
overload, unless overloads play different roles. A name that is not here is reported when the
explained tensor flows through it, never passed over in silence.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from libragrad_lightning.backward import (
    distances,
    gates,
    held_values,
    normalizations,
    slices,
    steps,
)
from libragrad_lightning.backward.operations import (
    ConstantOf,
    Node,
    Operation,
    Role,
    Vocabulary,
)


def _sum_of_constants(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """The constant operand of an addition or subtraction, with its sign and factor."""
    signs = (1.0, float(node._saved_alpha) * (-1.0 if node.name().startswith("Sub") else 1.0))
    constants = [constant_of(0), constant_of(1)]
    terms = [s * c for s, c in zip(signs, constants, strict=True) if c is not None]
    return terms[0] if len(terms) == 1 else None


def _scaled_addend(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """The first operand of addmm and its relatives, times beta."""
    addend = constant_of(0)
    return None if addend is None else addend * float(node._saved_beta)


def _plain_addend(node: Node, constant_of: ConstantOf) -> Tensor | None:
    return constant_of(0)


def _constant_end(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """The weighted constant operand of lerp with a tensor of weights."""
    weights = (1 - node._saved_weight, node._saved_weight)
    constants = [constant_of(0), constant_of(1)]
    terms = [w * c for w, c in zip(weights, constants, strict=True) if c is not None]
    return terms[0] if len(terms) == 1 else None


def _words(text: str) -> list[str]:
    return text.split()


_LINEAR = Operation(Role.LINEAR)
_GATE = Operation(Role.GATE, value=held_values.saved_result)
_STATISTIC = Operation(Role.STATISTIC, value=held_values.saved_result)

# Piecewise linear maps of one operand, and rearrangements (Cor 1). Max and its relatives select.
_LINEAR_NAMES = _words("""
Abs AdaptiveAvgPool2D AdaptiveAvgPool3D AdaptiveMaxPool2D AdaptiveMaxPool3D AffineGridGenerator
Alias Amax Amin AsStrided AvgPool2D AvgPool3D Cat ChannelShuffle Clone Col2Im Complex ConstantPadNd
Copy Cummax Cumsum Diagonal DiagonalScatter Embedding Expand FftC2C FftC2R FftR2C Flip
FractionalMaxPool2D Gather Hardshrink Im2Col Index IndexAdd IndexCopy IndexFill IndexPut IndexSelect
Kthvalue LeakyRelu Lift MaskedFill MaskedScatter MaskedSelect Max MaxPool2DWithIndices
MaxPool3DWithIndices Mean Median Min MkldnnMaxPool2D NanToNum Neg Permute PixelShuffle
PixelUnshuffle ReflectionPad1D ReflectionPad2D ReflectionPad3D Relu Repeat ReplicationPad1D
ReplicationPad2D ReplicationPad3D ReshapeAlias Roll Rot90 RreluWithNoise Scatter ScatterAdd Select
SelectScatter Slice SliceScatter Sort Split SplitWithSizes Squeeze Stack Sum T Take ToCopy Topk
Trace Transpose Tril Triu Unbind Unfold UnsafeSplit UnsafeSplitWithSizes UnsafeView Unsqueeze
UpsampleBicubic2D UpsampleBicubic2DAa UpsampleBilinear2D UpsampleBilinear2DAa UpsampleLinear1D
UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact1D UpsampleNearestExact2D
UpsampleNearestExact3D UpsampleTrilinear3D View ViewAsComplex ViewAsReal Where
""")

# Bounded or normalised weights, and functions without an affine part.
_GATE_NAMES = _words("""
Exp Exp2 LogSoftmax Logsumexp SafeSoftmax Sigmoid Softmax
""")

# Scales of composed normalisations: constant in the backward pass.
_STATISTIC_NAMES = _words("LinalgVectorNorm Norm Reciprocal Rsqrt Std")

_ATTENTION_NAMES = _words("""
ScaledDotProductFlashAttention ScaledDotProductFlashAttentionForCpu
ScaledDotProductEfficientAttention ScaledDotProductCudnnAttention
ScaledDotProductFusedAttentionOverrideable
""")


_BATCH_NORM_NAMES = _words("NativeBatchNorm CudnnBatchNorm MiopenBatchNorm")

_BATCH_NORM = Operation(
    Role.NORMALIZATION,
    (0, 1),
    additive=normalizations.batch_norm_bias,
    input_gradient=normalizations.batch_norm_gradient,
    check=normalizations.check_batch_norm,
    # torch 2.13 on CPU: wrong for one sample, a channels-last gradient and a contiguous input.
    contiguous=True,
)


_CLAMP = Operation(Role.ACTIVATION, gate=gates.clamp_gate, additive=gates.clamp_offset)


def _named(names: Iterable[str], operation: Operation) -> dict[str, Operation]:
    return {f"{name}Backward": operation for name in names}


def _product(*factors: int) -> Operation:
    return Operation(Role.PRODUCT, factors=factors)


VOCABULARY = Vocabulary(
    {
        **_named(_LINEAR_NAMES, _LINEAR),
        "torch::autograd::CopyBackwards": _LINEAR,
        "torch::autograd::CopySlices": Operation(Role.LINEAR, applies=slices.is_affine_write),
        # Records that a module has backward hooks.
        "BackwardHookFunctionBackward": Operation(Role.LINEAR, identity=True),
        "AddBackward": Operation(Role.LINEAR, additive=_sum_of_constants),
        "SubBackward": Operation(Role.LINEAR, additive=_sum_of_constants),
        "RsubBackward": _LINEAR,
        **_named(["Maximum", "Minimum"], Operation(Role.LINEAR, additive=gates.extremum_offset)),
        "ThresholdBackward": Operation(Role.LINEAR, additive=steps.threshold_offset),
        **_named(
            ["Cdist", "EuclideanDist"],
            Operation(
                Role.LINEAR,
                additive=distances.constant_points,
                applies=distances.is_distance,
                value=held_values.saved_result,
            ),
        ),
        # Overloads whose other operand is a Python number have one edge.
        **dict.fromkeys(("AddBackward1", "SubBackward1", "MulBackward1"), _LINEAR),
        **dict.fromkeys(("DivBackward1", "DivBackward3"), _LINEAR),
        **_named(_GATE_NAMES, _GATE),
        **{
            f"{name}Backward": Operation(Role.GATE, value=held_values.FunctionOfSelf(function))
            for name, function in held_values.FUNCTIONS.items()
        },
        **_named(steps.STEP_NAMES, Operation(Role.GATE)),
        "LogaddexpBackward": Operation(Role.GATE, value=held_values.logaddexp_value),
        "SoftplusBackward": Operation(Role.GATE, value=held_values.softplus_value),
        **_named(_STATISTIC_NAMES, _STATISTIC),
        "VarBackward": Operation(Role.STATISTIC, value=held_values.variance),
        # Products. The factor that is a parameter makes the product a linear map.
        "MulBackward": Operation(Role.PRODUCT, (0, 1), value=held_values.product_value),
        "MmBackward": _product(0, 1),
        "BmmBackward": _product(0, 1),
        "MvBackward": _product(0, 1),
        "DotBackward": _product(0, 1),
        "PreluKernelBackward": _product(0, 1),
        "TrilinearBackward": _product(0, 1, 2),
        "AddmmBackward": Operation(Role.PRODUCT, (1, 2), additive=_scaled_addend),
        "AddmvBackward": Operation(Role.PRODUCT, (1, 2), additive=_scaled_addend),
        "BaddbmmBackward": Operation(Role.PRODUCT, (1, 2), additive=_scaled_addend),
        "AddcmulBackward": Operation(Role.PRODUCT, (1, 2), additive=_plain_addend),
        "ConvolutionBackward": Operation(
            Role.PRODUCT, (0, 1), additive=normalizations.channel_bias
        ),
        # Activations x * g(x).
        "GeluBackward": Operation(Role.ACTIVATION, gate=gates.gelu_gate),
        "SiluBackward": Operation(Role.ACTIVATION, gate=gates.silu_gate),
        "HardswishBackward": Operation(Role.ACTIVATION, gate=gates.hardswish_gate),
        "MishBackward": Operation(Role.ACTIVATION, gate=gates.mish_gate),
        "EluBackward": Operation(Role.ACTIVATION, gate=gates.elu_gate),
        "CeluBackward": Operation(Role.ACTIVATION, gate=gates.celu_gate),
        "GluBackward": Operation(Role.ACTIVATION, input_gradient=gates.glu_gradient),
        "TanhBackward": Operation(
            Role.ACTIVATION, gate=gates.tanh_gate, value=held_values.saved_result
        ),
        **{
            f"{name}Backward": Operation(
                Role.ACTIVATION, gate=ratio, value=held_values.FunctionOfSelf(ratio.function)
            )
            for name, ratio in gates.RATIOS.items()
        },
        "Expm1Backward": Operation(
            Role.ACTIVATION, gate=gates.expm1_gate, value=held_values.saved_result
        ),
        "SoftshrinkBackward": Operation(Role.ACTIVATION, gate=gates.softshrink_gate),
        "HardtanhBackward": Operation(Role.ACTIVATION, gate=gates.clamp_gate),
        # Bounds that are numbers, then bounds that are tensors, which are not gated by x alone.
        **dict.fromkeys(("ClampBackward1", "ClampMinBackward0", "ClampMaxBackward0"), _CLAMP),
        **dict.fromkeys(
            ("ClampBackward0", "ClampMinBackward1", "ClampMaxBackward1"),
            Operation(Role.LINEAR, additive=gates.bounds_offset),
        ),
        # Attention: query, key, value, mask. Only the value stays live.
        **_named(
            _ATTENTION_NAMES,
            Operation(Role.ATTENTION, factors=(2,), value=held_values.saved_output),
        ),
        # Normalisations.
        "NativeLayerNormBackward": Operation(
            Role.NORMALIZATION,
            (0, 1),
            additive=normalizations.layer_norm_bias,
            input_gradient=normalizations.layer_norm_gradient,
        ),
        "NativeGroupNormBackward": Operation(
            Role.NORMALIZATION,
            (0, 1),
            additive=normalizations.channel_bias,
            input_gradient=normalizations.group_norm_gradient,
        ),
        "FusedRmsNormBackward": Operation(
            Role.NORMALIZATION, (0, 1), input_gradient=normalizations.rms_norm_gradient
        ),
        **_named(_BATCH_NORM_NAMES, _BATCH_NORM),
        # The variance or deviation scales; the mean that comes with it is linear.
        **_named(["VarMean", "StdMean"], Operation(Role.STATISTIC, linear_outputs=(1,))),
        "DivBackward": Operation(Role.QUOTIENT, (0,), value=held_values.quotient_value),
        "PowBackward0": Operation(Role.POWER, gate=gates.exponent, value=held_values.power_value),
        "PowBackward1": Operation(
            Role.POWER, (0,), gate=gates.exponents, value=held_values.power_value
        ),
        "PowBackward2": _GATE,
        "ProdBackward": Operation(Role.POWER, gate=gates.number_of_factors),
        # Combinations and samples with weights, or at places, that may depend on the input.
        "LerpBackward0": _LINEAR,
        "LerpBackward1": Operation(Role.WEIGHTING, (0, 1), additive=_constant_end),
        **_named(["GridSampler2D", "GridSampler3D"], Operation(Role.WEIGHTING, (0,))),
        "SqrtBackward": Operation(Role.POWER, gate=gates.square_root_exponent),
    }
)
"""What PyTorch records, by role; `versions` says which releases were read."""
