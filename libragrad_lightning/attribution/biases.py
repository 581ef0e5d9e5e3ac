"""Puts the contributions of biases in their places: on tokens where they have one, else per image.

The sum of all contributions at or after block l completes the attribution at the input of block l
(FullGrad; reference: Mehri et al. 2025, section 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from libragrad_lightning.backward import BiasSite, LibraGradError


@dataclass
class BiasLedger:
    """Collects bias contributions by token and image while gradients are computed.

    Call it as the `on_bias` of `libragrad_lightning.backward.grad`.

    Attributes:
        batch: Number of images.
        tokens: Number of tokens of the explained sequence.
        levels: Number of explained tensors.
    """

    batch: int
    tokens: int
    levels: int
    _placed: dict[int, Tensor] = field(default_factory=dict, repr=False)
    _unplaced: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def __call__(self, site: BiasSite, contribution: Tensor) -> None:
        """Add one elementwise contribution."""
        placed = contribution_per_token(contribution, self.batch, self.tokens)
        if placed is not None:
            self._placed[site.reach] = self._placed.get(site.reach, 0) + placed
        else:
            rest = contribution_per_image(contribution, self.batch)
            self._unplaced[site.reach] = self._unplaced.get(site.reach, 0) + rest

    def on_tokens(self, like: Tensor) -> Tensor:
        """Return `[L, B, T]`: for each level, the biases at or after it that belong to a token."""
        return self._by_level(self._placed, like.new_zeros(self.batch, self.tokens))

    def on_images(self, like: Tensor) -> Tensor:
        """Return `[L, B]`: for each level, the biases that belong to the image as a whole."""
        return self._by_level(self._unplaced, like.new_zeros(self.batch))

    def _by_level(self, sums: dict[int, Tensor], zero: Tensor) -> Tensor:
        return torch.stack(
            [
                sum((v for reach, v in sums.items() if reach >> level & 1), start=zero)
                for level in range(self.levels)
            ]
        )


def contribution_per_token(contribution: Tensor, batch: int, tokens: int) -> Tensor | None:
    """Sum an elementwise contribution to `[B, T]`, or return None if it has no token axis.

    Three layouts occur: `[B, T, ...]`; rows `[B * T, D]`; and, where an operation mixes tokens,
    `[B, D, T]` or its rows `[B * D, T]`.
    """
    shape = contribution.shape
    if len(shape) >= 3 and shape[:2] == (batch, tokens):
        return contribution.flatten(2).sum(2)
    if len(shape) == 2 and shape[0] == batch * tokens:
        return contribution.sum(1).view(batch, tokens)
    if len(shape) == 3 and (shape[0], shape[2]) == (batch, tokens):
        return contribution.sum(1)
    mixed = len(shape) == 2 and shape[1] == tokens and shape[0] > batch and shape[0] % batch == 0
    return contribution.view(batch, -1, tokens).sum(1) if mixed else None


def contribution_per_image(contribution: Tensor, batch: int) -> Tensor:
    """Sum an elementwise contribution to `[B]`.

    Raises:
        LibraGradError: If its first axis does not run over images.
    """
    if contribution.dim() == 0 or contribution.shape[0] % batch:
        raise LibraGradError(
            f"A bias contribution of shape {tuple(contribution.shape)} cannot be told apart by "
            f"image in a batch of {batch}; pass `batch_size=1`."
        )
    return contribution.reshape(batch, -1).sum(1)
