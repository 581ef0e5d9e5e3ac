"""Models that compute the same function of an image, laid out and written in other ways.

They attend without positions, so that the order of their tokens changes nothing about what they
compute. Every layout has the weights of the plain one, and so must have its map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

ORDERS = ("rows", "columns", "snake", "shuffled", "windows", "halves")
WRITINGS = (
    *("module", "sequence first", "einsum", "matmul", "bmm", "baddbmm", "fused", "rows"),
    *("tokens last", "kept heads"),
)


@dataclass(frozen=True)
class Layout:
    """A way to lay out and to write the same model.

    Attributes:
        grid: Rows and columns of patches.
        others: How many tokens beside the class token lie nowhere.
        before: How many of all that lie nowhere stand before the patches.
        class_at: Which of those that lie nowhere is the class token.
        order: The order of patches.
        writing: How attention is written.
        loose: Whether blocks have no module.
        routed: Whether rows are sent to two experts, which are the same.
        width: Channels.
        pooled: Whether patches are averaged instead of a class token read out.
    """

    grid: tuple[int, int] = (4, 4)
    others: int = 0
    before: int = 1
    class_at: int = 0
    order: str = "rows"
    writing: str = "module"
    loose: bool = False
    routed: bool = False
    width: int = 24
    pooled: bool = False

    @property
    def plain(self) -> Layout:
        """The layout of the plain twin: class token first, patches row by row, in modules."""
        return Layout(
            self.grid, self.others, 1 + self.others, 0, width=self.width, pooled=self.pooled
        )


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Draw a layout."""
    others = draw(st.integers(0, 12))
    return Layout(
        grid=draw(st.tuples(st.integers(2, 6), st.integers(2, 6))),
        others=others,
        before=draw(st.integers(0, 1 + others)),
        class_at=draw(st.integers(0, others)),
        order=draw(st.sampled_from(ORDERS)),
        writing=draw(st.sampled_from(WRITINGS)),
        loose=draw(st.booleans()),
        routed=draw(st.booleans()),
        width=draw(st.sampled_from([8, 12, 16, 20, 24, 36])),
        pooled=draw(st.booleans()),
    )


class Block(nn.Module):
    """Attention and an MLP, each behind a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )


class Experts(nn.Module):
    """Sends rows to two experts, which are the same, and puts them back."""

    def __init__(self, mlp: nn.Module, route: nn.Module) -> None:
        super().__init__()
        self.mlp, self.route = mlp, route

    def forward(self, x: Tensor) -> Tensor:
        chosen, out = self.route(x).argmax(-1), torch.zeros_like(x)
        for expert in (0, 1):
            out[chosen == expert] = self.mlp(x[chosen == expert])
        return out


def attended(attention: nn.MultiheadAttention, y: Tensor, writing: str) -> Tensor:
    """Return self-attention over the tokens of `[B, T, D]`, written in some way."""
    if writing == "module":
        return attention(y, y, y, need_weights=False)[0]
    if writing == "sequence first":
        y = y.transpose(0, 1)
        attention.batch_first = False
        return attention(y, y, y, need_weights=False)[0].transpose(0, 1)
    if writing == "kept heads":
        return attention(y, y, y, need_weights=True, average_attn_weights=False)[0]
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    batch, tokens, width = y.shape
    if writing == "rows":
        qkv = F.linear(y.reshape(-1, width), weight, bias).view(batch, tokens, -1)
    elif writing == "tokens last":
        qkv = F.conv1d(y.transpose(1, 2), weight[:, :, None], bias).transpose(1, 2)
    else:
        qkv = F.linear(y, weight, bias)
    heads, size = 4, width // 4
    q, k, v = qkv.view(batch, tokens, 3, heads, size).permute(2, 0, 3, 1, 4)
    out = _mixed(q, k, v, size, writing)
    out = out.transpose(1, 2).reshape(batch, tokens, width)
    return F.linear(out, attention.out_proj.weight, attention.out_proj.bias)


def _mixed(q: Tensor, k: Tensor, v: Tensor, size: int, writing: str) -> Tensor:
    scale = 1 / math.sqrt(size)
    if writing == "einsum":
        weights = torch.einsum("bhid,bhjd->bhij", q, k).mul(scale).softmax(-1)
        return torch.einsum("bhij,bhjd->bhid", weights, v)
    if writing in ("bmm", "baddbmm"):
        rows, keys, values = (x.flatten(0, 1) for x in (q, k, v))
        if writing == "bmm":
            scores = torch.bmm(rows * scale, keys.transpose(1, 2))
        else:
            nothing = rows.new_zeros(len(rows), rows.shape[1], rows.shape[1])
            scores = torch.baddbmm(nothing, rows, keys.transpose(1, 2), beta=1, alpha=scale)
        return torch.bmm(scores.softmax(-1), values).unflatten(0, q.shape[:2])
    if writing == "fused":
        return F.scaled_dot_product_attention(q, k, v)
    return (q @ k.transpose(-1, -2) * scale).softmax(-1) @ v


class LaidOut(nn.Module):
    """A transformer of two blocks in a layout."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout, width = layout, layout.width
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.nowhere = nn.Parameter(torch.zeros(1, 1 + layout.others, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def rewritten(self) -> LaidOut:
        """Rewrite the model, once it has its weights."""
        width, generator = self.layout.width, torch.Generator().manual_seed(9)
        for block in self.blocks:
            if self.layout.routed:
                route = nn.Linear(width, 2)
                route.weight.data = torch.randn(2, width, generator=generator)
                block.mlp = Experts(block.mlp, route.double())
            if not self.layout.loose:
                block.forward = lambda z, b=block: self.through(b, z)
        if self.layout.loose:
            blocks = list(self.blocks)
            del self.blocks
            parts = (nn.ModuleList([b.norm1, b.attention, b.norm2, b.mlp]) for b in blocks)
            self.parts = nn.ModuleList(parts)
        return self

    def through(self, block: nn.Module, z: Tensor) -> Tensor:
        z = z + attended(block.attention, block.norm1(z), self.layout.writing)
        return z + block.mlp(block.norm2(z))

    def sequence(self, images: Tensor) -> tuple[Tensor, int]:
        """Return the tokens, and the number of the class token among them."""
        layout, p = self.layout, self.patches(images)
        rows = p.flatten(2).transpose(1, 2)[:, in_order(layout.order, layout.grid)]
        # The class token is the first of the weights, wherever it stands.
        numbers = [
            *range(1, layout.class_at + 1),
            0,
            *range(layout.class_at + 1, 1 + layout.others),
        ]
        nowhere = self.nowhere[:, numbers].expand(len(images), -1, -1)
        front, back = nowhere[:, : layout.before], nowhere[:, layout.before :]
        half = rows.shape[1] // 2 if layout.order == "halves" else rows.shape[1]
        at = layout.class_at + (half if layout.class_at >= layout.before else 0)
        return torch.cat([front, rows[:, :half], back, rows[:, half:]], 1), at

    def forward(self, images: Tensor) -> Tensor:
        z, at = self.sequence(images)
        if self.layout.loose:
            for norm1, attention, norm2, mlp in self.parts:
                z = z + attended(attention, norm1(z), self.layout.writing)
                z = z + mlp(norm2(z))
        else:
            for block in self.blocks:
                z = block(z)
        return self.head(self.norm(z).mean(1) if self.layout.pooled else self.norm(z)[:, at])


def in_order(order: str, grid: tuple[int, int]) -> Tensor:
    """Return the numbers of patches in an order."""
    numbers = torch.arange(grid[0] * grid[1]).view(grid)
    if order == "columns":
        return numbers.T.flatten()
    if order == "snake":
        return torch.stack([r.flip(0) if i % 2 else r for i, r in enumerate(numbers)]).flatten()
    if order == "shuffled":
        return numbers.flatten()[
            torch.randperm(numbers.numel(), generator=torch.Generator().manual_seed(5))
        ]
    if order == "windows":
        cut = (max(1, grid[0] // 2), max(1, grid[1] // 2))
        bands = [band.split(cut[1], 1) for band in numbers.split(cut[0], 0)]
        return torch.cat([w.flatten() for band in bands for w in band])
    return numbers.flatten()


def laid_out(layout: Layout) -> nn.Module:
    """Return a model in a layout, with random weights that all layouts share."""
    model = LaidOut(layout)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).double() * 0.3
    return model.double().eval().rewritten()
