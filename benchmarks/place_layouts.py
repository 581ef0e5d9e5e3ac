"""Transformers that lay out their tokens in unusual ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from place_maps import map_models
from place_models import PlaceModel, Size

D, CLASSES = 24, 5
Order = Callable[[int, int], Tensor]


class Block(nn.Module):
    """Attention and MLP, each with a residual connection."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.attention = nn.MultiheadAttention(D, 4, batch_first=batch_first)
        self.mlp = nn.Sequential(nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))

    def forward(self, x: Tensor) -> Tensor:
        """Return what it makes of features."""
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


def by_row(rows: int, columns: int) -> Tensor:
    return torch.arange(rows * columns)


def by_column(rows: int, columns: int) -> Tensor:
    return torch.arange(rows * columns).view(rows, columns).t().flatten()


def to_and_fro(rows: int, columns: int) -> Tensor:
    order = torch.arange(rows * columns).view(rows, columns).clone()
    order[1::2] = order[1::2].flip(1)
    return order.flatten()


def shuffled(rows: int, columns: int) -> Tensor:
    return torch.randperm(rows * columns, generator=torch.Generator().manual_seed(11))


def backwards(rows: int, columns: int) -> Tensor:
    return torch.arange(rows * columns).flip(0)


def upside_down(rows: int, columns: int) -> Tensor:
    return torch.arange(rows * columns).view(rows, columns).flip(0).flatten()


def windows(rows: int, columns: int) -> Tensor:
    order = torch.arange(rows * columns).view(rows // 2, 2, columns // 2, 2)
    return order.transpose(1, 2).flatten()


def hilbert(rows: int, columns: int) -> Tensor:
    """Return a Hilbert curve's order over a square whose side is a power of two."""
    points = [(0, 0)]
    side = 1
    while side < max(rows, columns):
        first = [(c, r) for r, c in points]
        last = [(2 * side - 1 - c, side - 1 - r) for r, c in points]
        second = [(r, c + side) for r, c in points]
        third = [(r + side, c + side) for r, c in points]
        points = [*first, *second, *third, *last]
        side *= 2
    return torch.tensor([r * columns + c for r, c in points if r < rows and c < columns])


class Layout(nn.Module):
    """A transformer whose tokens stand in the order of `parts`, those of patches in `order`.

    Args:
        parts: ``class``, ``patches``, ``first`` and ``second`` half of the patches, or a number of
            tokens that are learnt.
        order: From rows and columns to the numbers of the patches in sequence.
        stem: Makes a map `[B, D, h, w]` of images; patches of 8 pixels by default.
        mean: Whether the mean of all tokens is read out instead of the class token.
        sequence_first: Whether the blocks receive `[T, B, D]`.
        position: How many tokens have learnt positions; none by default.
    """

    def __init__(
        self,
        parts: str = "class patches",
        order: Order = by_row,
        stem: nn.Module | None = None,
        *,
        mean: bool = False,
        sequence_first: bool = False,
        depth: int = 2,
        position: int = 0,
    ) -> None:
        super().__init__()
        self.parts, self.order, self.mean = parts.split(), order, mean
        self.sequence_first = sequence_first
        self.stem = stem or nn.Conv2d(3, D, 8, 8)
        self.class_token = nn.Parameter(torch.zeros(1, 1, D))
        self.learnt = nn.ParameterList(
            torch.zeros(1, int(part), D) for part in self.parts if part.isdigit()
        )
        self.position = nn.Parameter(torch.zeros(1, position, D)) if position else None
        self.blocks = nn.Sequential(*(Block(not sequence_first) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, CLASSES)

    def sequence(self, images: Tensor) -> tuple[Tensor, int | None]:
        """Return the tokens `[B, T, D]` and where the class token is."""
        maps = self.stem(images)
        patches = maps.flatten(2).transpose(1, 2)[:, self.order(*maps.shape[2:])]
        half = patches.shape[1] // 2
        learnt, found, place = iter(self.learnt), [], None
        named = {"patches": patches, "first": patches[:, :half], "second": patches[:, half:]}
        for part in self.parts:
            if part == "class":
                place = sum(f.shape[1] for f in found)
                found.append(self.class_token.expand(len(images), -1, -1))
            elif part.isdigit():
                found.append(next(learnt).expand(len(images), -1, -1))
            else:
                found.append(named[part])
        tokens = torch.cat(found, dim=1)
        return tokens if self.position is None else tokens + self.position, place

    def encoded(self, tokens: Tensor) -> Tensor:
        """Return what the blocks make of tokens `[B, T, D]`."""
        if self.sequence_first:
            return self.blocks(tokens.transpose(0, 1)).transpose(0, 1)
        return self.blocks(tokens)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]`."""
        tokens, place = self.sequence(images)
        tokens = self.norm(self.encoded(tokens))
        read = tokens.mean(1) if self.mean or place is None else tokens[:, place]
        return self.head(read)


class PackedRows(Layout):
    """Runs the blocks on the tokens of all images in one row, with a mask between the images."""

    def __init__(self) -> None:
        super().__init__("patches", mean=True)

    def encoded(self, tokens: Tensor) -> Tensor:
        """Return what the blocks make of tokens `[B, T, D]`."""
        images, length = tokens.shape[:2]
        owner = torch.arange(images).repeat_interleave(length)
        packed, mask = tokens.flatten(0, 1)[None], owner[:, None] != owner
        for block in self.blocks:
            y = block.norm1(packed)
            packed = packed + block.attention(y, y, y, attn_mask=mask, need_weights=False)[0]
            packed = packed + block.mlp(block.norm2(packed))
        return packed[0].unflatten(0, (images, length))


class Rowwise(nn.Module):
    """An MLP on rows `[B T, D]`, with a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(D)
        self.layers = nn.Sequential(nn.Linear(D, D), nn.GELU(), nn.Linear(D, D))

    def forward(self, rows: Tensor) -> Tensor:
        """Return what it makes of features."""
        return rows + self.layers(self.norm(rows))


class FlattenedRows(Layout):
    """Runs its blocks on rows without an axis for images."""

    def __init__(self) -> None:
        super().__init__("patches", mean=True)
        self.blocks = nn.Sequential(Rowwise(), Rowwise())

    def encoded(self, tokens: Tensor) -> Tensor:
        """Return what the blocks make of tokens `[B, T, D]`."""
        return self.blocks(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])


class PaddedTokens(Layout):
    """Fills the sequence up with tokens of zeros, as batches of different sizes need it."""

    def sequence(self, images: Tensor) -> tuple[Tensor, int | None]:
        """Return the tokens `[B, T, D]` and where the class token is."""
        tokens, place = super().sequence(images)
        return nn.functional.pad(tokens, (0, 0, 0, 4)), place


class TwoPasses(Layout):
    """Runs an image and its mirror image through the same blocks, one after the other."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]`."""
        return super().forward(images) + super().forward(images.flip(3))


class MirroredBatch(Layout):
    """Runs images and their mirror images as one batch."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]`."""
        both = super().forward(torch.cat([images, images.flip(3)]))
        return sum(both.chunk(2))  # type: ignore[return-value]


class MirroredTokens(Layout):
    """Puts the patches of the mirror image behind those of the image."""

    def sequence(self, images: Tensor) -> tuple[Tensor, int | None]:
        """Return the tokens `[B, T, D]` and where the class token is."""
        tokens, place = super().sequence(images)
        return torch.cat([tokens, super().sequence(images.flip(3))[0]], dim=1), place


class Mirrored(Layout):
    """Turns the image around before anything else."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]`."""
        return super().forward(images.flip(3))


class Latents(nn.Module):
    """Learnt queries that read the patches by cross-attention, and then attend to each other."""

    def __init__(self, latents: int, patch_blocks: int = 0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, D, 8, 8)
        self.before = nn.Sequential(*(Block() for _ in range(patch_blocks)))
        self.latents = nn.Parameter(torch.randn(1, latents, D))
        self.reading = nn.MultiheadAttention(D, 4, batch_first=True)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(D, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]`."""
        patches = self.before(self.stem(images).flatten(2).transpose(1, 2))
        latents = self.latents.expand(len(images), -1, -1)
        latents = latents + self.reading(latents, patches, patches, need_weights=False)[0]
        return self.head(self.blocks(latents).mean(1))


def models() -> Iterator[PlaceModel]:
    """Yield every layout."""
    yield from map_models()
    for name, build, *size in _sequences():
        yield PlaceModel("layouts", name, build, size[0] if size else (32, 32))
        if not size and not name.startswith(("positions", "Hilbert")):
            yield PlaceModel("layouts", name, build, (32, 48))


Named = tuple[str, Callable[[], nn.Module]] | tuple[str, Callable[[], nn.Module], Size]


def _sequences() -> Iterator[Named]:
    for parts in (
        "class patches", "patches class", "first class second", "class 4 patches",
        "4 class patches",
        "class patches 4", "patches 4 class", "4 patches class", "2 patches 2", "class 2 patches 3",
        "first 4 second", "first 2 class 2 second", "2 first class second 3",
    ):  # fmt: skip
        yield f"tokens:{parts.replace(' ', '-')}", partial(Layout, parts)
    for prompts in (1, 2, 3, 5, 7, 8, 9, 10, 12, 15, 16, 17, 20):
        yield f"prompts:{prompts}", partial(Layout, f"class {prompts} patches")
    yield "no-class-token", partial(Layout, "patches")
    yield "mean-of-all", partial(Layout, "class 3 patches", mean=True)
    for order in (by_column, to_and_fro, shuffled, backwards, upside_down, windows):
        yield f"order:{order.__name__}", partial(Layout, "class patches", order)
        yield f"order:{order.__name__},registers-last", partial(Layout, "class patches 4", order)
    yield "Hilbert-curve", partial(Layout, "class patches", hilbert), (32, 32)
    yield "Hilbert-curve,large", partial(Layout, "class patches", hilbert), (64, 64)
    yield "positions", partial(Layout, "class patches", position=17), (32, 32)
    yield "sequence-first", partial(Layout, sequence_first=True)
    yield "sequence-first,registers-last", partial(Layout, "class patches 4", sequence_first=True)
    yield "sequence-first,two-tokens", partial(Layout, "patches", sequence_first=True), (16, 8)
    yield "as-many-tokens-as-images", partial(Layout, "patches"), (8, 16)
    yield "rows-of-all-images", FlattenedRows
    yield "packed", PackedRows
    yield "padded-with-tokens", PaddedTokens
    yield "mirror,two-passes", TwoPasses
    yield "mirror,one-batch", MirroredBatch
    yield "mirror,one-sequence", MirroredTokens
    yield "mirror,image-alone", Mirrored
    for latents in (4, 8, 16, 24):
        yield f"latents:{latents}", partial(Latents, latents)
    yield "latents,behind-blocks", partial(Latents, 8, 2)
