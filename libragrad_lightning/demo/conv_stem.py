"""Convolutions in place of the linear patch embedding of a vision transformer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from timm.layers import PatchEmbed  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn


class ConvStem(PatchEmbed):  # type: ignore[misc]
    """Convolutions in place of a linear patch embedding (Xiao et al. 2021), and positions.

    An image smaller than `img_size` stands for a piece of one: its tokens get the positions of one
    of the pieces that a whole image can be cut into, drawn for each batch. So close-ups train what
    whole images need; positions that are resampled to their size do not.

    Args:
        img_size: Height and width of whole images, pixels.
        patch_size: Height and width of a patch, pixels: a power of two, at least 4.
        in_chans: Channels of images.
        embed_dim: Width of the tokens.
        kwargs: All other arguments of timm's `PatchEmbed`.
    """

    def __init__(
        self,
        img_size: int = 48,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim, **kwargs)
        self.proj = _convolutions(patch_size, in_chans, embed_dim)
        rows, columns = self.grid_size
        self.positions = nn.Parameter(0.02 * torch.randn(embed_dim, rows, columns))

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens `[B, N, embed_dim]` of images `[B, in_chans, H, W]`."""
        tokens: Tensor = self.proj(images)
        place = [
            size * int(torch.randint(whole // size, ())) if size < whole else 0
            for size, whole in zip(tokens.shape[2:], self.grid_size, strict=True)
        ]
        rows, columns = (
            slice(start, start + size) for start, size in zip(place, tokens.shape[2:], strict=True)
        )
        return (tokens + self.positions[:, rows, columns]).flatten(2).transpose(1, 2)


def _convolutions(patch_size: int, in_chans: int, embed_dim: int) -> nn.Sequential:
    widths = [in_chans, *(24 * 2**i for i in range(patch_size.bit_length() - 1))]
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.GELU()]
    last = widths[-1]
    layers += [nn.Conv2d(last, last, 3, padding=1), nn.GELU(), nn.Conv2d(last, embed_dim, 1)]
    return nn.Sequential(*layers)
