"""Deletion of one group of patches at a time, from the most salient ones to the least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from libragrad_lightning.models import TokenModel
from libragrad_lightning.perturbation.checks import check_rows, check_scores
from libragrad_lightning.perturbation.chunks import RowChunks
from libragrad_lightning.perturbation.operators import Fill, Perturbation, perturbation_operator
from libragrad_lightning.perturbation.ranking import deletion_ranks, tie_breakers

GROUPS = 10
"""In how many groups patches are deleted (Wu et al. 2024)."""


@dataclass(frozen=True)
class GroupLogits:
    """Logits without one group of patches, for each of K groups.

    Attributes:
        logits: `[B, K, C]`; those of `group_logits` without the largest scores first.
        salience: What the scores of each group add up to, `[B, K]`.
        perturbation: The name of the operator that was used.
    """

    logits: Tensor
    salience: Tensor
    perturbation: str


@torch.no_grad()
def group_logits(
    model: TokenModel,
    images: Tensor,
    scores: Mapping[str, Tensor],
    groups: int = GROUPS,
    batch_size: int = 64,
    perturbation: str | Perturbation | Fill = "tokens",
) -> dict[str, GroupLogits]:
    """Return the logits without each tenth of the patches, for several maps of the same images.

    Args:
        model: The model and its tokens.
        images: `[B, C, H, W]`.
        scores: Named attributions over patches, each `[B, N]` or `[B, h, w]`, signed. Equal ones
            are ordered as by `deletion_logits`; the logits of an image with a NaN are NaN.
        groups: Number K of groups, as equal in size as N patches allow, at most N.
        batch_size: Rows per forward pass.
        perturbation: What deletion does, as for `deletion_logits`.

    Raises:
        ValueError: If there are more groups than patches, and as `deletion_logits`.
        UnreadableModelError: If tokens are to be left out of a model that does not allow it.
    """
    check_rows(images, batch_size)
    patches = check_scores(scores, len(images), model.grid(images))
    rows = {name: score.flatten(1) for name, score in scores.items()}
    if not 1 <= groups <= patches:
        raise ValueError(
            f"`groups` must lie between 1 and the number of patches, {patches}, but is {groups}."
        )
    operator = perturbation_operator(perturbation, model, images)
    chunks = RowChunks(operator.begin(model, images), batch_size)
    ties = tie_breakers(images, patches)
    numbers = torch.arange(len(images), device=images.device)
    bounds = [number * patches // groups for number in range(groups + 1)]
    found = {}
    for name, row in rows.items():
        ranks, _ = deletion_ranks(row, ties)
        logits, salience = [], []
        for first, end in pairwise(bounds):
            kept = (ranks < first) | (ranks >= end)
            logits.append(chunks.logits(numbers, kept, patches - end + first))
            salience.append(row.masked_fill(kept, 0).sum(1))
        unranked = row.isnan().any(1)[:, None, None]
        joined = torch.stack(logits, 1).masked_fill(unranked, float("nan"))
        found[name] = GroupLogits(joined, torch.stack(salience, 1), operator.name)
    return found
