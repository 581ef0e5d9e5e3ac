"""Stems and feature maps that meet the cells of an image in unusual ways."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from place_models import PlaceModel

CLASSES = 5


class Residual(nn.Module):
    """Two convolutions with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return what it makes of features."""
        return x + self.layers(x)


class ChannelsLastBlock(nn.Module):
    """A block of a Swin-like network without windows: cells are mixed along rows and columns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return what it makes of features."""
        y = self.mix(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + y
        return x + self.mlp(self.norm(x))


class ChannelsLast(nn.Module):
    """Feature maps `[B, h, w, D]`."""

    def __init__(self, channels: int, patch: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, patch, patch)
        self.blocks = nn.Sequential(ChannelsLastBlock(channels), ChannelsLastBlock(channels))
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]`."""
        return self.head(self.blocks(self.stem(images).permute(0, 2, 3, 1)).mean((1, 2)))


class ChannelsFirst(nn.Module):
    """Feature maps `[B, D, h, w]` behind any stem."""

    def __init__(self, channels: int, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(Residual(channels), Residual(channels))
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]`."""
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


class Padded(nn.Module):
    """Pads images on the right and below to whole patches, or all around."""

    def __init__(self, patch: int, around: int = 0) -> None:
        super().__init__()
        self.patch, self.around = patch, around
        self.project = nn.Conv2d(3, 12, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]`."""
        right, below = (-n % self.patch for n in (images.shape[3], images.shape[2]))
        size = (self.around, self.around + right, self.around, self.around + below)
        return self.project(F.pad(images, size))


class Turned(nn.Module):
    """Works on maps whose rows are the columns of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = ChannelsFirst(12, nn.Conv2d(3, 12, 4, 4))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]`."""
        return self.inner(images.transpose(2, 3))


class UShape(nn.Module):
    """Halves and doubles the resolution, with a long connection across."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, 4)
        self.down, self.deep = nn.Conv2d(12, 24, 2, 2), Residual(24)
        self.first, self.last = Residual(12), Residual(12)
        self.up = nn.ConvTranspose2d(24, 12, 2, 2)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]`."""
        shallow = self.first(self.stem(images))
        x = self.last(shallow + self.up(self.deep(self.down(shallow))))
        return self.head(x.mean((2, 3)))


class UShapeOfTokens(nn.Module):
    """A transformer whose late blocks receive what early ones made, beside their own input."""

    def __init__(self) -> None:
        super().__init__()
        from place_layouts import Block, D

        self.stem = nn.Conv2d(3, D, 8, 8)
        self.early, self.late = nn.ModuleList([Block(), Block()]), nn.ModuleList([Block(), Block()])
        self.join = nn.ModuleList([nn.Linear(2 * D, D), nn.Linear(2 * D, D)])
        self.head = nn.Linear(D, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]`."""
        x, kept = self.stem(images).flatten(2).transpose(1, 2), []
        for block in self.early:
            x = block(x)
            kept.append(x)
        for block, join in zip(self.late, self.join, strict=True):
            x = block(join(torch.cat([x, kept.pop()], dim=2)))
        return self.head(x.mean(1))


def map_models() -> Iterator[PlaceModel]:
    """Yield every network of feature maps, and transformers behind unusual stems."""
    sizes = {"square": (32, 32), "high": (48, 32), "wide": (32, 64)}
    for label, size in sizes.items():
        yield _model(f"channels-last,{label}", partial(ChannelsLast, 12), size)
        yield _model(f"channels-last,tie,{label}", partial(ChannelsLast, size[0] // 4), size)
        yield _model(
            f"channels-last,tie-columns,{label}", partial(ChannelsLast, size[1] // 4), size
        )
        first = partial(_first, size[0] // 4, 4)
        yield _model(f"channels-first,tie,{label}", first, size)
        yield _model(f"turned,{label}", Turned, size)
        yield _model(f"U-shape,{label}", UShape, size)
        yield _model(f"U-shape,tokens,{label}", UShapeOfTokens, size)
    yield _model("channels-last,three-rows", partial(ChannelsLast, 3, 8), (24, 24))
    for patch, size in ((14, (40, 40)), (14, (60, 44)), (7, (40, 33)), (16, (60, 60))):
        yield _model(f"borders-cropped,{patch}", partial(_first, 12, patch), size)
        yield _model(f"padded,{patch}", partial(_behind, 12, partial(Padded, patch)), size)
    yield _model("padded-around", partial(_behind, 12, partial(Padded, 8, 4)), (40, 40))
    for kernel, stride, padding in ((7, 4, 3), (16, 8, 4), (3, 2, 1), (12, 8, 2), (8, 4, 0)):
        stem = partial(nn.Conv2d, 3, 12, kernel, stride, padding)
        yield _model(f"overlapping,{kernel}-by-{stride}", partial(_behind, 12, stem), (32, 48))
    yield _model("overlapping,three-convolutions", partial(_behind, 12, _three), (64, 48))


def _model(
    name: str, build: partial[nn.Module] | type[nn.Module], size: tuple[int, int]
) -> PlaceModel:
    return PlaceModel("layouts", name, build, size)


def _first(channels: int, patch: int) -> nn.Module:
    return ChannelsFirst(channels, nn.Conv2d(3, channels, patch, patch))


def _behind(channels: int, stem: partial[nn.Module]) -> nn.Module:
    return ChannelsFirst(channels, stem())


def _three() -> nn.Module:
    def step(before: int) -> nn.Module:
        return nn.Conv2d(before, 12, 3, 2, 1)

    return nn.Sequential(step(3), nn.ReLU(), step(12), nn.ReLU(), step(12))
