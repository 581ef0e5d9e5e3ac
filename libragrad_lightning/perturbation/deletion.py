"""Deletion and insertion curves (Mehri et al. 2025, section 4.1).

At a level rho, k = floor(rho * N) of the N patches are deleted: the k most influential ones (MIF)
or the k least influential ones (LIF), by signed attribution. Insertion of the most influential
fraction rho is what LIF leaves at the level 1 - rho. All levels of an image follow from one
ranking, in which ties are broken at random (`ranking`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from libragrad_lightning.models import TokenModel
from libragrad_lightning.perturbation.checks import check_rows, check_scores
from libragrad_lightning.perturbation.chunks import RowChunks
from libragrad_lightning.perturbation.operators import (
    Fill,
    Perturbation,
    perturbation_operator,
)
from libragrad_lightning.perturbation.ranking import deletion_ranks, tie_breakers
from libragrad_lightning.perturbation.rows import FastestRows

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The paper's deletion levels."""


@dataclass(frozen=True)
class DeletionLogits:
    """Logits of perturbed images.

    Attributes:
        most_influential_first: `[B, S, C]` for S levels.
        least_influential_first: `[B, S, C]`.
        perturbation: The name of the operator that was used.
    """

    most_influential_first: Tensor
    least_influential_first: Tensor
    perturbation: str


def check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Return the levels as a tuple.

    Raises:
        ValueError: If there are none or one is not in [0, 1].
    """
    fractions = tuple(float(level) for level in levels)
    if not fractions or not all(0 <= level <= 1 for level in fractions):
        raise ValueError(
            f"`levels` must be fractions of deleted patches in [0, 1] but is {list(fractions)}."
        )
    return fractions


@torch.no_grad()
def deletion_logits(
    model: TokenModel,
    images: Tensor,
    scores: Mapping[str, Tensor],
    levels: Sequence[float] = LEVELS,
    batch_size: int = 64,
    perturbation: str | Perturbation | Fill = "tokens",
    fastest: FastestRows | None = None,
) -> dict[str, DeletionLogits]:
    """Return the logits under deletion for several rankings of the same images.

    Forward passes are shared by all rankings, both orders and, unless shorter sequences cost less,
    all levels. Rankings that are the same for all images are followed once.

    Args:
        model: The model and its tokens.
        images: `[B, C, H, W]`.
        scores: Named attributions over patches, each `[B, N]` or `[B, h, w]`, signed. Equal ones
            follow each other in a random order that the pixels of the image determine, so that a
            constant map has no gain on average, and the result of an image does not depend on its
            batch. An image with a NaN among its scores has no ranking: its logits are NaN, which
            every metric counts as invalid.
        levels: Fractions of deleted patches in [0, 1].
        batch_size: Rows of full length per forward pass; of shorter rows, as many as have as many
            tokens.
        perturbation: What deletion does, by name (`PERTURBATIONS`), as an operator, or a function
            from images to what replaces their pixels.
        fastest: Finds out how many rows are fastest, up to `batch_size`; as many by default.

    Raises:
        ValueError: If there is no image, a level or the batch size is out of range, the name of the
            perturbation is unknown, scores are not those of the patches of these images, or no
            patch is left where the model needs one.
        UnreadableModelError: If tokens are to be left out of a model that does not allow it.
    """
    check_rows(images, batch_size)
    operator = perturbation_operator(perturbation, model, images)
    patches = check_scores(scores, len(images), model.grid(images))
    counts = _deleted_counts(check_levels(levels), patches)
    rows, ties = [score.flatten(1) for score in scores.values()], tie_breakers(images, patches)
    ranks = torch.stack([order for row in rows for order in deletion_ranks(row, ties)])
    distinct, which = torch.unique(ranks.flatten(1), dim=0, return_inverse=True)
    distinct = distinct.unflatten(1, ranks.shape[1:])
    chunks = RowChunks(operator.begin(model, images), batch_size, fastest)
    curves = _logits(operator, chunks, distinct, counts)[which]
    unranked = torch.stack([row.isnan().any(dim=1) for row in rows]).repeat_interleave(2, dim=0)
    curves = curves.masked_fill(unranked[:, :, None, None], float("nan"))
    return {
        name: DeletionLogits(curves[2 * i], curves[2 * i + 1], operator.name)
        for i, name in enumerate(scores)
    }


def insertion_logits(
    model: TokenModel,
    images: Tensor,
    scores: Mapping[str, Tensor],
    levels: Sequence[float] = LEVELS,
    batch_size: int = 64,
    perturbation: str | Perturbation | Fill = "tokens",
) -> dict[str, DeletionLogits]:
    """Return the logits when only a fraction of the patches is there, for several rankings.

    Arguments and result as those of `deletion_logits`; the levels are fractions of patches that are
    inserted, most or least influential first.
    """
    kept = [1 - level for level in check_levels(levels)]
    deleted = deletion_logits(model, images, scores, kept, batch_size, perturbation)
    return {
        name: DeletionLogits(d.least_influential_first, d.most_influential_first, d.perturbation)
        for name, d in deleted.items()
    }


def _deleted_counts(levels: Sequence[float], patches: int) -> list[int]:
    # A level such as 0.29 of 100 patches is 28.999999999999996 of them; in float32 it is less.
    return [math.floor(level * patches + 1e-6 * patches) for level in levels]


def _logits(
    operator: Perturbation, chunks: RowChunks, ranks: Tensor, counts: Sequence[int]
) -> Tensor:
    """Return `[R, B, S, C]` for the places `[R, B, N]` of patches in R orders."""
    orders, batch, patches = ranks.shape
    rows = torch.arange(batch, device=ranks.device).repeat(orders)
    ranks = ranks.flatten(0, 1)
    if operator.shortens:
        levels = [
            chunks.logits(rows, ranks >= k, patches - k, max(1, patches - k) / patches)
            for k in counts
        ]
        return torch.stack(levels, 1).unflatten(0, (orders, batch))
    kept = torch.stack([ranks >= k for k in counts], 1).flatten(0, 1)
    found = chunks.logits(rows.repeat_interleave(len(counts)), kept, 0)
    return found.unflatten(0, (orders, batch, len(counts)))
