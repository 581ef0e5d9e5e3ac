"""How exact LibraGrad is on the kernels of attention and norms that a device really takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cuda_findings import Finding, Setup, failed
from libragrad_lightning.backward import LIBRA, ConstantObserver, grad
from libragrad_lightning.backward.attention_watch import AttentionWatch
from libragrad_lightning.backward.graph import annotate_graph

LIMITS = {
    torch.float64: 1e-13,
    torch.float32: 1e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}
"""The largest |sum of contributions - logit|, relative to the sum of their absolute values."""

MASKS = ("none", "causal", "additive", "boolean")
_NAMES = {torch.float64: "float64", torch.float32: "float32", torch.float16: "float16"}


class Attention(nn.Module):
    """A block of attention without norms; heads of any size, as the kernels are chosen by it."""

    def __init__(self, head_size: int, heads: int = 2) -> None:
        super().__init__()
        width = heads * head_size
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor, mask: str = "none") -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        options = _options(mask, tokens, query)
        mixed = F.scaled_dot_product_attention(query, key, value, **options)
        x = x + self.projection(mixed.transpose(1, 2).reshape(batch, tokens, width))
        scores: Tensor = self.head(x.mean(1))
        return scores


def _options(mask: str, tokens: int, like: Tensor) -> dict[str, object]:
    if mask == "none":
        return {}
    if mask == "causal":
        return {"is_causal": True}
    places = torch.arange(tokens, device=like.device)
    distance = (places[:, None] - places[None, :]).abs()
    if mask == "boolean":
        return {"attn_mask": distance < tokens // 2}
    return {"attn_mask": (-0.1 * distance).to(like.dtype)}


@dataclass(frozen=True)
class Case:
    """One way to call attention."""

    backend: SDPBackend
    dtype: torch.dtype
    head_size: int
    tokens: int
    mask: str

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.backend.name.lower()}, {dtype}, head {self.head_size}, mask {self.mask}"


def kernel_cases(setup: Setup) -> Iterator[Case]:
    """Yield all ways to call attention that a device may have; not every kernel takes all."""
    backends = [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]
    if setup.on_cuda:
        backends += [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
    head_sizes = (32, 36, 64, 80, 128) if setup.on_cuda else (32, 36)
    for backend, dtype, size, mask in itertools.product(backends, LIMITS, head_sizes, MASKS):
        tokens = 50 if size == 64 else 64
        yield Case(backend, dtype, size, tokens, mask)


def kernel_findings(setup: Setup) -> Iterator[Finding]:
    """Yield one finding for each kernel, dtype and mask: the worst over the sizes of heads."""
    groups = itertools.groupby(kernel_cases(setup), lambda c: (c.backend, c.dtype))
    for (backend, dtype), cases in groups:
        what = f"{backend.name.lower()}, {str(dtype).removeprefix('torch.')}"
        tried: list[tuple[float, Case]] = []
        nodes: set[str] = set()
        told = 0.0
        for case in cases:
            try:
                noise, names, weights = attention_noise(case, setup.device)
            except Exception as error:
                if "No available kernel" in str(error):  # this one takes other calls
                    continue
                yield failed(str(case), error)
                continue
            tried.append((noise, case))
            nodes |= names
            told = max(told, weights)
        if not tried:
            continue
        worst, case = max(tried, key=lambda pair: pair[0])
        note = f"{len(tried)} calls; {', '.join(sorted(nodes))}; worst: {case}"
        yield Finding(f"{what}: residual", worst, LIMITS[dtype], note)
        yield Finding(f"{what}: weights that the node tells", told, 10 * LIMITS[dtype])


def attention_noise(case: Case, device: torch.device) -> tuple[float, set[str], float]:
    """Return the noise of the decomposition, the attention's nodes, and the error of its weights.

    Half precision runs under autocast, as it does in training.
    """
    torch.manual_seed(0)
    half = case.dtype in (torch.float16, torch.bfloat16)
    model = Attention(case.head_size).to(device, torch.float32 if half else case.dtype)
    width = 2 * case.head_size
    x = torch.randn(2, case.tokens, width, device=device, dtype=model.head.weight.dtype)
    x.requires_grad_()
    autocast = torch.autocast(device.type, case.dtype, enabled=half)
    told: list[Tensor] = []
    watch = AttentionWatch(lambda _, weights, __: told.append(weights.detach()))
    with sdpa_kernel(case.backend), ConstantObserver():
        with autocast:
            scores = model(x, case.mask)
        names = {n.node.name() for n in annotate_graph([scores], [x], LIBRA).nodes}
        noise = libra_noise(scores[:, 0], x, watch=[watch])
    (weights,) = told
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        expected = _weights(model.double(), x.double(), case)
    attention = {n for n in names if "ttention" in n or "oftmax" in n}
    return noise, attention, float((weights.double().view_as(expected) - expected).abs().max())


def _weights(model: Attention, x: Tensor, case: Case) -> Tensor:
    """Return the weights of attention, computed by other means."""
    batch, tokens, width = x.shape
    parts = model.qkv(x).view(batch, tokens, 3, model.heads, width // model.heads)
    query, key, _ = parts.permute(2, 0, 3, 1, 4)
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) / case.head_size**0.5
    options = _options(case.mask, tokens, query)
    mask = options.get("attn_mask")
    if case.mask == "causal":
        mask = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).tril()
    if isinstance(mask, Tensor):
        allowed = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, -torch.inf) if allowed else scores + mask
    return scores.softmax(-1)


def libra_noise(scores: Tensor, x: Tensor, watch: list[AttentionWatch] | None = None) -> float:
    """Return |sum of contributions - scores| relative to the sum of absolute contributions."""
    total, size = 0.0, 0.0

    def add(_: object, contribution: Tensor) -> None:
        nonlocal total, size
        total += float(contribution.double().sum())
        size += float(contribution.double().abs().sum())

    (gradient,) = grad(scores.sum(), [x], rules=LIBRA, on_bias=add, watch=watch or [])
    at_input = (x.detach().double() * gradient.double()).flatten()
    total, size = total + float(at_input.sum()), size + float(at_input.abs().sum())
    return abs(total - float(scores.detach().double().sum())) / size


NORMS: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: nn.LayerNorm(16),
    "RMS norm": lambda: nn.RMSNorm(16),
    "group norm": lambda: nn.GroupNorm(4, 12),
    "batch norm": lambda: nn.BatchNorm2d(12),
    "instance norm": lambda: nn.InstanceNorm2d(12, affine=True),
}


def norm_findings(setup: Setup) -> Iterator[Finding]:
    """Yield one finding for each norm, dtype and memory format."""
    formats = {"": torch.contiguous_format, ", channels last": torch.channels_last}
    for (name, make), dtype, (said, layout) in itertools.product(
        NORMS.items(), (torch.float64, torch.float32), formats.items()
    ):
        what = f"{name}{said}, {str(dtype).removeprefix('torch.')}"
        try:
            noise, nodes = _norm_noise(make, dtype, layout, setup.device)
        except Exception as error:
            yield failed(what, error)
            continue
        yield Finding(what, noise, LIMITS[dtype], ", ".join(sorted(nodes)))


def _norm_noise(
    make: Callable[[], nn.Module],
    dtype: torch.dtype,
    layout: torch.memory_format,
    device: torch.device,
) -> tuple[float, set[str]]:
    torch.manual_seed(0)
    norm = make().eval()
    for parameter in norm.parameters():
        nn.init.normal_(parameter, 1.0, 0.3)
    if isinstance(norm, nn.BatchNorm2d):
        nn.init.normal_(norm.running_mean, 0.0, 0.5)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    convolution = nn.Conv2d(3, 12, 3, padding=1)
    model = nn.Sequential(convolution, norm, nn.GELU(), nn.Flatten(), nn.Linear(12 * 256, 1))
    model = model.to(device, dtype, memory_format=layout)
    x = torch.randn(2, 3, 16, 16, device=device, dtype=dtype).to(memory_format=layout)
    x.requires_grad_()
    with torch.backends.cudnn.flags(allow_tf32=False), ConstantObserver():
        scores = model(x)
        names = {n.node.name() for n in annotate_graph([scores], [x], LIBRA).nodes}
        noise = libra_noise(scores[:, 0], x)
    return noise, {n for n in names if "Norm" in n or "Mean" in n}
