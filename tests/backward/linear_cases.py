"""Linear maps by the name of the node that they record."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.distributed.fsdp._fully_shard._fsdp_param_group import RegisterPostBackwardFunction
from torch.nn.modules._functions import BackwardHookFunction

EXACT = "nearest-exact"
PICKED = torch.tensor([[0, 1, 0, 2]] * 3).T.contiguous()  # [4, 3], in 0..2


def pooled(x, pool, *arguments):
    return pool(x.reshape(1, 1, 4, 6), *arguments)


def volume(x, pool, *arguments):
    return pool(x.reshape(1, 1, 2, 3, 4), *arguments)


def upsampled(mode, **kwargs):
    return lambda x: F.interpolate(x.reshape(1, 1, 4, 6), scale_factor=2, mode=mode, **kwargs)


def as_complex(x):
    return torch.view_as_complex(x.view(4, 3, 2))


def resharded(x):
    """What FSDP2 records of a module."""
    group = SimpleNamespace(post_backward=lambda: None)
    return RegisterPostBackwardFunction.apply(group, x)[0]


def written(x):
    y = x.clone()
    y[:2] += 3 * x[2:]
    return y


# Maps of x [4, 6] by the name of the node that they record; each is positively homogeneous.
LINEAR = {
    "AbsBackward": torch.abs,
    "AdaptiveAvgPool2DBackward": lambda x: pooled(x, F.adaptive_avg_pool2d, 3),
    "AdaptiveAvgPool3DBackward": lambda x: volume(x, F.adaptive_avg_pool3d, 2),
    "AdaptiveMaxPool2DBackward": lambda x: pooled(x, F.adaptive_max_pool2d, 3),
    "AdaptiveMaxPool3DBackward": lambda x: volume(x, F.adaptive_max_pool3d, 2),
    "AddBackward": lambda x: x + x.T.reshape(4, 6),
    "AffineGridGeneratorBackward": lambda x: F.affine_grid(x.view(4, 2, 3), (4, 1, 2, 2), False),
    "AliasBackward": lambda x: torch.ops.aten.alias(x),
    "AmaxBackward": lambda x: x.amax(1),
    "AminBackward": lambda x: x.amin((0, 1)),
    "AsStridedBackward": lambda x: x.as_strided((3, 2), (6, 2)),
    "AvgPool2DBackward": lambda x: pooled(x, F.avg_pool2d, 2),
    "AvgPool3DBackward": lambda x: volume(x, F.avg_pool3d, 2),
    "BackwardHookFunctionBackward": lambda x: BackwardHookFunction.apply(x)[0],
    "CatBackward": lambda x: torch.cat([x, 2 * x], 1),
    "CdistBackward": lambda x: torch.cdist(x, 2 * x.flip(0)),
    "ChannelShuffleBackward": lambda x: F.channel_shuffle(x.view(1, 4, 6, 1), 2),
    "CloneBackward": torch.clone,
    "Col2ImBackward": lambda x: F.fold(x.reshape(1, 4, 6), (3, 4), 2),
    "ComplexBackward": lambda x: torch.view_as_real(torch.complex(x, 2 * x.flip(0))),
    "ConstantPadNdBackward": lambda x: F.pad(x, (1, 2)),
    "CummaxBackward": lambda x: x.cummax(1)[0],
    "CumsumBackward": lambda x: x.cumsum(0),
    "DiagonalBackward": lambda x: x.diagonal(1),
    "DiagonalScatterBackward": lambda x: x.diagonal_scatter(2 * x[0, :4]),
    "DivBackward1": lambda x: torch.ops.aten.div.Scalar(x, 3.0),
    "EmbeddingBackward": lambda x: F.embedding(PICKED, x),
    "EuclideanDistBackward": lambda x: torch.cdist(x.repeat(8, 1), 2 * x.flip(0)),
    "ExpandBackward": lambda x: x[None].expand(2, 4, 6),
    "FftC2CBackward": lambda x: torch.view_as_real(torch.fft.fft(as_complex(x))),
    "FftC2RBackward": lambda x: torch.fft.irfft(as_complex(x)),
    "FftR2CBackward": lambda x: torch.view_as_real(torch.fft.rfft(x)),
    "FlipBackward": lambda x: x.flip(0),
    "FractionalMaxPool2DBackward": lambda x: pooled(x, F.fractional_max_pool2d, 2, 2),
    "GatherBackward": lambda x: x.gather(1, PICKED),
    "HardshrinkBackward": F.hardshrink,
    "Im2ColBackward": lambda x: F.unfold(x.reshape(1, 1, 4, 6), 2),
    "IndexBackward": lambda x: x[torch.tensor([0, 0, 3])],
    "IndexAddBackward": lambda x: x.index_add(0, torch.tensor([1, 1]), x[2:]),
    "IndexCopyBackward": lambda x: x.index_copy(0, torch.tensor([2, 1]), 3 * x[2:]),
    "IndexFillBackward": lambda x: x.index_fill(0, torch.tensor([1, 3]), x[0, 0]),
    "IndexPutBackward": lambda x: x.index_put((torch.tensor([1, 3]),), x[2:] * 2),
    "IndexSelectBackward": lambda x: x.index_select(1, torch.tensor([5, 0, 5])),
    "KthvalueBackward": lambda x: x.kthvalue(2, 1)[0],
    "LeakyReluBackward": lambda x: F.leaky_relu(x, 0.2),
    "MaskedFillBackward": lambda x: x.masked_fill(x > 1, 0.0),
    "MaskedScatterBackward": lambda x: x.masked_scatter(x > 0, 3 * x),
    "MaskedSelectBackward": lambda x: x.masked_select(x > 0),
    "MaxBackward": lambda x: x.max(1)[0],
    "MaxPool2DWithIndicesBackward": lambda x: pooled(x, F.max_pool2d, 2),
    "MaxPool3DWithIndicesBackward": lambda x: volume(x, F.max_pool3d, 2),
    "MaximumBackward": lambda x: torch.maximum(x, -2 * x),
    "MeanBackward": lambda x: x.mean(0),
    "MedianBackward": lambda x: x.median(1)[0],
    "MinBackward": lambda x: x.min(),
    "MinimumBackward": lambda x: torch.minimum(x, 0.5 * x),
    "MulBackward1": lambda x: torch.ops.aten.mul.Scalar(x, 3.0),
    "NanToNumBackward": torch.nan_to_num,
    "NegBackward": torch.neg,
    "PermuteBackward": lambda x: x.reshape(2, 2, 6).permute(2, 0, 1),
    "PixelShuffleBackward": lambda x: F.pixel_shuffle(x.reshape(1, 4, 2, 3), 2),
    "PixelUnshuffleBackward": lambda x: F.pixel_unshuffle(x.reshape(1, 1, 4, 6), 2),
    "ReflectionPad1DBackward": lambda x: F.pad(x, (1, 1), mode="reflect"),
    "ReflectionPad2DBackward": lambda x: F.pad(x[None], (1, 1, 1, 1), mode="reflect"),
    "ReflectionPad3DBackward": lambda x: F.pad(x.view(1, 2, 3, 4), (1,) * 6, mode="reflect"),
    "ReluBackward": torch.relu,
    "RegisterPostBackwardFunctionBackward": resharded,
    "RepeatBackward": lambda x: x.repeat(2, 1, 3),
    "ReplicationPad1DBackward": lambda x: F.pad(x, (1, 1), mode="replicate"),
    "ReplicationPad2DBackward": lambda x: F.pad(x[None], (1, 1, 1, 1), mode="replicate"),
    "ReplicationPad3DBackward": lambda x: F.pad(x.view(1, 2, 3, 4), (1,) * 6, mode="replicate"),
    "ReshapeAliasBackward": lambda x: torch.ops.aten._reshape_alias(x, (6, 4), (4, 1)),
    "RollBackward": lambda x: x.roll((1, 2), (0, 1)),
    "Rot90Backward": torch.rot90,
    "RreluWithNoiseBackward": lambda x: F.rrelu(x, training=False),
    "RsubBackward": lambda x: torch.rsub(x, 2 * x, alpha=3),
    "ScatterBackward": lambda x: x.scatter(1, PICKED[:, :1], 2 * x[:, 3:4]),
    "ScatterAddBackward": lambda x: x.scatter_add(1, PICKED, 2 * x[:, 3:]),
    "SelectBackward": lambda x: x[:, 2],
    "SelectScatterBackward": lambda x: x.select_scatter(x[0], 0, 2),
    "SliceBackward": lambda x: x[1:3],
    "SliceScatterBackward": lambda x: x.slice_scatter(x[:2], 0, 2),
    "SortBackward": lambda x: x.sort(1)[0],
    "SplitBackward": lambda x: x.split(3, 1)[1],
    "SplitWithSizesBackward": lambda x: x.split([1, 5], 1)[1],
    "SqueezeBackward": lambda x: x[:, None].squeeze(1),
    "StackBackward": lambda x: torch.stack([x, 3 * x]),
    "SubBackward": lambda x: torch.sub(x, x.flip(0), alpha=2),
    "SumBackward": lambda x: x.sum(1),
    "TBackward": lambda x: x.t(),
    "TakeBackward": lambda x: x.take(PICKED),
    "ThresholdBackward": lambda x: F.threshold(x, 0.3, 0.0),
    "ToCopyBackward": lambda x: x.float(),
    "TopkBackward": lambda x: x.topk(2, 1)[0],
    "TraceBackward": lambda x: x[:, :4].trace(),
    "TransposeBackward": lambda x: x.transpose(0, 1),
    "TrilBackward": torch.tril,
    "TriuBackward": torch.triu,
    "UnbindBackward": lambda x: x.unbind(1)[2],
    "UnfoldBackward": lambda x: x.unfold(1, 3, 2),
    "UnsafeSplitBackward": lambda x: x.unsafe_split(2)[0],
    "UnsafeSplitWithSizesBackward": lambda x: x.unsafe_split_with_sizes([1, 3])[1],
    "UnsafeViewBackward": lambda x: torch.ops.aten._unsafe_view(x, (6, 4)),
    "UnsqueezeBackward": lambda x: x.unsqueeze(1),
    "UpsampleBicubic2DAaBackward": upsampled("bicubic", antialias=True),
    "UpsampleBicubic2DBackward": upsampled("bicubic"),
    "UpsampleBilinear2DAaBackward": upsampled("bilinear", antialias=True),
    "UpsampleBilinear2DBackward": upsampled("bilinear"),
    "UpsampleLinear1DBackward": lambda x: F.interpolate(x[None], size=9, mode="linear"),
    "UpsampleNearest1DBackward": lambda x: F.interpolate(x[None], size=9),
    "UpsampleNearest2DBackward": upsampled("nearest"),
    "UpsampleNearest3DBackward": lambda x: volume(x, F.interpolate, None, 2),
    "UpsampleNearestExact1DBackward": lambda x: F.interpolate(x[None], size=9, mode=EXACT),
    "UpsampleNearestExact2DBackward": upsampled(EXACT),
    "UpsampleNearestExact3DBackward": lambda x: volume(x, F.interpolate, None, 2, EXACT),
    "UpsampleTrilinear3DBackward": lambda x: volume(x, F.interpolate, None, 2, "trilinear"),
    "ViewBackward": lambda x: x.view(3, 8),
    "ViewAsComplexBackward": lambda x: torch.view_as_real(as_complex(x) * 1j),
    "ViewAsRealBackward": lambda x: torch.view_as_real(as_complex(x).flip(0)),
    "WhereBackward": lambda x: torch.where(x > 0, x, 3 * x.flip(0)),
    "torch::autograd::CopyBackwards": lambda x: (3 * x).copy_(x),
    "torch::autograd::CopySlices": written,
}

NOT_HERE = {
    "CopyBackward": "the functional form, which the compiler alone records",
    "LiftBackward": "recorded by exported programs",
    "MkldnnMaxPool2DBackward": "tensors in the layout of oneDNN",
    "AddBackward1": "recorded inside PyTorch",
    "SubBackward1": "recorded inside PyTorch",
    "DivBackward3": "rounded quotients, whose gradient is zero",
    "LerpBackward0": "tested with the weighted combinations",
}
