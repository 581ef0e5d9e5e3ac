"""Deletion curves by leaving tokens out of the sequence (Mehri et al. 2025, section 4.1).

At a level rho, k = floor(rho * N) of the N patch tokens are deleted: the k most influential ones
(MIF) or the k least influential ones (LIF), by signed attribution. Prefix tokens stay. Where the
model allows, deleted tokens are left out of the sequence, so that deeper levels cost less; else
they are set to zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from libragrad_lightning.models import TokenModel

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The paper's deletion levels."""


@dataclass(frozen=True)
class DeletionLogits:
    """Logits of perturbed images.

    Attributes:
        most_influential_first: `[B, S, C]` for S levels.
        least_influential_first: `[B, S, C]`.
    """

    most_influential_first: Tensor
    least_influential_first: Tensor


def check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Return the levels as a tuple.

    Raises:
        ValueError: If there are none or one is not in [0, 1).
    """
    if not levels or not all(0 <= level < 1 for level in levels):
        raise ValueError(
            f"`levels` must be fractions of deleted patches in [0, 1) but is {list(levels)}."
        )
    return tuple(levels)


@torch.no_grad()
def deletion_logits(
    model: TokenModel,
    images: Tensor,
    scores: Mapping[str, Tensor],
    levels: Sequence[float] = LEVELS,
    batch_size: int = 64,
) -> dict[str, DeletionLogits]:
    """Return the logits under deletion for several rankings of the same images.

    All rankings and both orders share the forward passes of a level.

    Args:
        model: The model and its tokens.
        images: `[B, C, H, W]`.
        scores: Named attributions over patches, each `[B, N]` or `[B, h, w]`, signed.
        levels: Fractions of deleted patches in [0, 1).
        batch_size: Rows per forward pass.

    Raises:
        ValueError: If a level is out of range.
    """
    levels = check_levels(levels)
    tokens = model.tokens(images)
    orders = {name: _most_influential_first(score.flatten(1)) for name, score in scores.items()}
    rankings = torch.stack([r for o in orders.values() for r in (o, o.flip(1))])
    drop = model.positions_end_at_tokens(images)
    per_level = [
        _logits_at(model, images, tokens, rankings, level, batch_size, drop) for level in levels
    ]
    curves = torch.stack(per_level, dim=2).unbind(0)
    return {name: DeletionLogits(curves[2 * i], curves[2 * i + 1]) for i, name in enumerate(orders)}


def _most_influential_first(scores: Tensor) -> Tensor:
    """Rank patches `[B, N]`, ties by position, so that a ranking is reproducible."""
    return scores.argsort(dim=1, descending=True, stable=True)


def _logits_at(
    model: TokenModel,
    images: Tensor,
    tokens: Tensor,
    rankings: Tensor,
    level: float,
    batch_size: int,
    drop: bool,
) -> Tensor:
    """Return logits `[R, B, C]` for rankings `[R, B, N]` at one level."""
    count, batch, patches = rankings.shape
    kept = rankings[:, :, math.floor(level * patches) :].sort(dim=2).values.flatten(0, 1)
    rows = torch.arange(batch, device=images.device).repeat(count)
    change = _left_out if drop else _zeroed
    out = [
        change(model, images[r], tokens[r], k)
        for r, k in zip(rows.split(batch_size), kept.split(batch_size), strict=True)
    ]
    return torch.cat(out).unflatten(0, (count, batch))


def _left_out(model: TokenModel, images: Tensor, tokens: Tensor, kept: Tensor) -> Tensor:
    """Return the logits for prefix tokens and the patches at `kept` `[R, K]` alone."""
    index = _token_index(kept, model.levels[0].prefix, tokens.shape[2])
    return model.logits_from_tokens(images, tokens.gather(1, index), kept)


def _zeroed(model: TokenModel, images: Tensor, tokens: Tensor, kept: Tensor) -> Tensor:
    """Return the logits with all patches but those at `kept` `[R, K]` set to zero."""
    index = _token_index(kept, model.levels[0].prefix, tokens.shape[2])
    return model.logits_from_tokens(
        images, torch.zeros_like(tokens).scatter(1, index, tokens.gather(1, index))
    )


def _token_index(kept: Tensor, prefix: int, channels: int) -> Tensor:
    first = torch.arange(prefix, device=kept.device).expand(kept.shape[0], prefix)
    return torch.cat([first, kept + prefix], dim=1)[:, :, None].expand(-1, -1, channels)
