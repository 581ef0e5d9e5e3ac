"""Examples of the operations that torch records, each beside what LibraGrad makes of it.

A reference is ordinary code in which `detach` says what the rule should do; where there is none, an
operation is linear and its ordinary gradient is the rule's. References are written from the rules'
definitions (Mehri et al. 2025, section 3) and share nothing with the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Example = Callable[..., Tensor]

SHAPE = (2, 3, 8, 8)


@dataclass(frozen=True)
class OperationExample:
    """One operation.

    Attributes:
        name: What it is called.
        forward: A function of one to three tensors of the shape `SHAPE`.
        reference: The same function, whose ordinary gradient is that of LibraGrad.
        count: How many tensors.
    """

    name: str
    forward: Example
    reference: Example
    count: int = 1


def operation_examples() -> Iterator[OperationExample]:
    """Yield examples of operations that models consist of."""
    for name, forward in _LINEAR.items():
        yield OperationExample(name, forward, forward)
    for name, forward in _LINEAR_OF_TWO.items():
        yield OperationExample(name, forward, forward, 2)
    for name, function in _GATES.items():
        yield _gate(name, function)
    for name, function in _ACTIVATIONS.items():
        yield _activation(name, function)
    for name, product in _PRODUCTS.items():
        yield _product(name, product)
    for name, (forward, reference, count) in _OTHERS.items():
        yield OperationExample(name, forward, reference, count)


def _gate(name: str, function: Example) -> OperationExample:
    return OperationExample(
        name, lambda x, y: function(x) * y, lambda x, y: function(x.detach()) * y, 2
    )


def _activation(name: str, function: Example) -> OperationExample:
    return OperationExample(name, function, lambda x: x * (function(x) / x).detach())


def _product(name: str, product: Example) -> OperationExample:
    def halves(x: Tensor, y: Tensor) -> Tensor:
        return (product(x, y.detach()) + product(x.detach(), y)) / 2

    return OperationExample(name, product, halves, 2)


def _like(x: Tensor, *shape: int) -> Tensor:
    """Return numbers about 0, the same ones at every call."""
    count = int(torch.Size(shape).numel())
    return torch.linspace(-1.0, 1.3, count, dtype=torch.float64).reshape(shape).to(x)


def _places(x: Tensor, *places: int) -> Tensor:
    return torch.tensor(places, device=x.device)


def _where(x: Tensor) -> Tensor:
    return _like(x, *x.shape) > 0


_LINEAR: dict[str, Example] = {
    "reshape": lambda x: x.transpose(1, 2).reshape(2, -1),
    "view": lambda x: x.view(6, 64),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "t": lambda x: x[0, 0].t(),
    "expand": lambda x: x[:, :1].expand(SHAPE),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "slices": lambda x: x[:, 1:, ::2],
    "split": lambda x: x.split([1, 2], 1)[1],
    "chunk": lambda x: x.chunk(2, 2)[1],
    "unbind": lambda x: x.unbind(1)[2],
    "squeeze": lambda x: x[:, :1].squeeze(1).unsqueeze(2),
    "cat": lambda x: torch.cat([x, 2 * x], 1),
    "stack": lambda x: torch.stack([x, -x], 1),
    "pad": lambda x: F.pad(x, (1, 2, 3, 0)),
    "reflection pad": lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
    "replication pad": lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate"),
    "flip": lambda x: x.flip(2),
    "roll": lambda x: x.roll((1, 2), (2, 3)),
    "rot90": lambda x: x.rot90(1, (2, 3)),
    "index": lambda x: x[:, _places(x, 2, 0)],
    "index select": lambda x: x.index_select(3, _places(x, 5, 5, 1)),
    "gather": lambda x: x.gather(1, torch.zeros_like(x, dtype=torch.long)),
    "take": lambda x: x.take(_places(x, 5, 300)),
    "masked select": lambda x: x.masked_select(_where(x)),
    "masked fill": lambda x: x.masked_fill(_where(x), 2.0),
    "where": lambda x: torch.where(_where(x), x, 1.5),
    "index copy": lambda x: x.index_copy(1, _places(x, 1), _like(x, 2, 1, 8, 8)),
    "index add": lambda x: x.index_add(1, _places(x, 1), _like(x, 2, 1, 8, 8)),
    "scatter": lambda x: x.scatter(1, _places(x, 0).expand(2, 1, 8, 8), 0.5),
    "diagonal": lambda x: x.diagonal(0, 2, 3),
    "tril": lambda x: x.tril(),
    "triu": lambda x: x.triu(),
    "trace": lambda x: x[0, 0].trace(),
    "cumsum": lambda x: x.cumsum(2),
    "sum": lambda x: x.sum(1),
    "mean": lambda x: x.mean((2, 3)),
    "amax": lambda x: x.amax((2, 3)),
    "amin": lambda x: x.amin((2, 3)),
    "max": lambda x: x.max(1).values,
    "min": lambda x: x.min(),
    "median": lambda x: x.median(3).values,
    "sort": lambda x: x.sort(3).values,
    "topk": lambda x: x.topk(3, 3).values,
    "cummax": lambda x: x.cummax(2).values,
    "abs": lambda x: x.abs(),
    "relu": lambda x: x.relu(),
    "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "neg": lambda x: -x,
    "hardshrink": lambda x: F.hardshrink(x, 0.3),
    "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.mT.contiguous(),
    "average pool": lambda x: F.avg_pool2d(x, 3, 2),
    "max pool": lambda x: F.max_pool2d(x, 3, 2),
    "adaptive average pool": lambda x: F.adaptive_avg_pool2d(x, 3),
    "adaptive max pool": lambda x: F.adaptive_max_pool2d(x, 3),
    "nearest": lambda x: F.interpolate(x, size=(5, 7)),
    "bilinear": lambda x: F.interpolate(x, size=(5, 7), mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, size=(5, 7), mode="bicubic"),
    "bicubic, antialias": lambda x: F.interpolate(x, (5, 7), mode="bicubic", antialias=True),
    "bilinear, antialias": lambda x: F.interpolate(x, (5, 7), mode="bilinear", antialias=True),
    "pixel shuffle": lambda x: F.pixel_shuffle(x.view(2, 12, 4, 4), 2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel shuffle": lambda x: F.channel_shuffle(x, 3),
    "unfold": lambda x: F.unfold(x, 3),
    "fold": lambda x: F.fold(x.view(2, 12, 16), (8, 8), 2, stride=2),
    "windows": lambda x: x.unfold(3, 4, 2),
    "fft": lambda x: torch.view_as_real(torch.fft.fft2(x)),
    "rfft": lambda x: torch.fft.irfft2(torch.fft.rfft2(x)),
    "add a number": lambda x: x + 0.5,
    "subtract from a number": lambda x: 0.5 - x,
    "times a number": lambda x: 3 * x / 2,
    "linear": lambda x: F.linear(x, _like(x, 5, 8), _like(x, 5)),
    "addmm": lambda x: F.linear(x.view(48, 8), _like(x, 5, 8), _like(x, 5)),
    "convolution": lambda x: F.conv2d(x, _like(x, 4, 3, 3, 3), _like(x, 4), padding=1),
    "grouped convolution": lambda x: F.conv2d(x, _like(x, 3, 1, 3, 3), _like(x, 3), groups=3),
    "transposed convolution": lambda x: F.conv_transpose2d(x, _like(x, 3, 4, 2, 2), _like(x, 4)),
    "matrix on the left": lambda x: _like(x, 5, 8) @ x,
    "mv": lambda x: x[0, 0] @ _like(x, 8),
    "dot": lambda x: x[0, 0, 0] @ _like(x, 8),
    "prelu": lambda x: F.prelu(x, _like(x, 3)),
    "threshold": lambda x: F.threshold(x, 0.1, 0.0),
    "batch norm": lambda x: F.batch_norm(
        x, _like(x, 3), _like(x, 3).square() + 1, _like(x, 3), _like(x, 3) + 2
    ),
    "einsum": lambda x: torch.einsum("bchw,wk->bkhc", x, _like(x, 8, 5)),
}

_LINEAR_OF_TWO: dict[str, Example] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - 2 * y,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "lerp by a number": lambda x, y: torch.lerp(x, y, 0.3),
    "where of two": lambda x, y: torch.where(_where(x), x, y),
    "copy into": lambda x, y: x.clone().index_copy_(1, _places(x, 0), y[:, :1]),
    "slice scatter": lambda x, y: torch.slice_scatter(x, y[:, 1:], 1, 1),
    "cdist": lambda x, y: torch.cdist(x, y),
}

_GATES: dict[str, Example] = {
    "softmax": lambda x: x.softmax(-1),
    "log softmax": lambda x: x.log_softmax(-1),
    "logsumexp": lambda x: x.logsumexp(1, keepdim=True),
    "exp": torch.exp,
    "exp2": torch.exp2,
    "power of a number": lambda x: 2**x,
    "sigmoid": torch.sigmoid,
    "cos": torch.cos,
    "erfc": torch.erfc,
    "hardsigmoid": F.hardsigmoid,
    "log": lambda x: (1 + x.abs()).log(),
    "log2": lambda x: (1 + x.abs()).log2(),
    "log10": lambda x: (1 + x.abs()).log10(),
    "log sigmoid": F.logsigmoid,
    "softplus": F.softplus,
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "trunc": torch.trunc,
    "std": lambda x: x.std(-1, keepdim=True),
    "var": lambda x: x.var(-1, keepdim=True),
    "norm": lambda x: x.norm(dim=-1, keepdim=True),
    "rsqrt": lambda x: (1 + x.abs()).rsqrt(),
    "reciprocal": lambda x: (1 + x.abs()).reciprocal(),
}

_ACTIVATIONS: dict[str, Example] = {
    "gelu": F.gelu,
    "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "tanh": torch.tanh,
    "asinh": torch.asinh,
    "atan": torch.atan,
    "erf": torch.erf,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "expm1": torch.expm1,
    "softshrink": lambda x: F.softshrink(x, 0.2),
    "hardtanh": F.hardtanh,
    "clamp": lambda x: x.clamp(-0.7, 0.6),
    "clamp from below": lambda x: x.clamp(min=-0.5),
    "clamp from above": lambda x: x.clamp(max=0.5),
    "square": torch.square,
    "cube": lambda x: x**3,
}

_PRODUCTS: dict[str, Example] = {
    "product": lambda x, y: x * y,
    "matrix product": lambda x, y: x @ y,
    "product of two matrices": lambda x, y: x[0, 0] @ y[0, 0],
    "product of matrix and vector": lambda x, y: x[0, 0] @ y[0, 0, 0],
    "scalar product": lambda x, y: x[0, 0, 0] @ y[0, 0, 0],
}


def _layer_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, (8,), _like(x, 8), _like(x, 8) + 1)


def _layer_norm_reference(x: Tensor) -> Tensor:
    deviation = (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt().detach()
    return (x - x.mean(-1, keepdim=True)) / deviation * _like(x, 8) + _like(x, 8) + 1


def _group_norm_reference(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    deviation = (flat.var(1, correction=0, keepdim=True) + 1e-5).sqrt().detach()
    return ((flat - flat.mean(1, keepdim=True)) / deviation).view_as(x)


def _rms_norm_reference(x: Tensor) -> Tensor:
    size = (x.square().mean(-1, keepdim=True) + 1e-6).sqrt().detach()
    return x / size * _like(x, 8)


def _attention_reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q @ k.mT) / 8**0.5).softmax(-1).detach() @ v


_OTHERS: dict[str, tuple[Example, Example, int]] = {
    "layer norm": (_layer_norm, _layer_norm_reference, 1),
    "group norm": (lambda x: F.group_norm(x, 1), _group_norm_reference, 1),
    "RMS norm": (lambda x: F.rms_norm(x, (8,), _like(x, 8), 1e-6), _rms_norm_reference, 1),
    "glu": (F.glu, lambda x: x[..., :4] * x[..., 4:].sigmoid().detach(), 1),
    "fused attention": (F.scaled_dot_product_attention, _attention_reference, 3),
    "quotient": (lambda x, y: x / (y.abs() + 1), lambda x, y: x / (y.abs() + 1).detach(), 2),
    "square root": (
        lambda x: (x.abs() + 1).sqrt(),
        lambda x: (x.abs() + 1) * (x.abs() + 1).rsqrt().detach(),
        1,
    ),
    "lerp": (
        lambda x, y, w: torch.lerp(x, y, w.sigmoid()),
        lambda x, y, w: torch.lerp(x, y, w.sigmoid().detach()),
        3,
    ),
    "grid sample": (
        lambda x, y: F.grid_sample(x, y[..., :2], align_corners=False),
        lambda x, y: F.grid_sample(x, y[..., :2].detach(), align_corners=False),
        2,
    ),
}
