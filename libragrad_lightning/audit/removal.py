"""What a model makes of images without some of their patches, as metrics ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from libragrad_lightning.attribution import Explanation
from libragrad_lightning.audit.config import AuditConfig
from libragrad_lightning.models import TokenModel
from libragrad_lightning.perturbation import (
    GROUPS,
    DeletionLogits,
    GroupLogits,
    deletion_logits,
    group_logits,
)
from libragrad_lightning.perturbation.rows import FastestRows


def logits_under_deletion(
    model: TokenModel,
    images: Tensor,
    explanations: Sequence[Explanation],
    config: AuditConfig,
    at_once: int,
    fastest: FastestRows | None,
) -> Mapping[str, DeletionLogits]:
    """Return the logits under deletion by rule set; nothing if no metric asks for them.

    Args:
        model: The model.
        images: `[B, C, H, W]`.
        explanations: How they are explained, once for each rule set.
        config: What is measured.
        at_once: How many images are explained at once.
        fastest: Finds out how many rows are fastest; as many as there is room for by default.
    """
    if "deletion" not in config.needs:
        return {}
    maps = {e.rules.name: e.attribution for e in explanations}
    most = 2 * len(maps) * at_once
    return deletion_logits(model, images, maps, config.levels, most, config.perturbation, fastest)


def logits_without_groups(
    model: TokenModel,
    images: Tensor,
    explanations: Sequence[Explanation],
    config: AuditConfig,
    at_once: int,
) -> Mapping[str, GroupLogits]:
    """Return the logits without groups of patches by rule set, as `logits_under_deletion` does."""
    if "groups" not in config.needs:
        return {}
    maps = {e.rules.name: e.attribution for e in explanations}
    groups = min(GROUPS, *(m[0].numel() for m in maps.values()))
    return group_logits(model, images, maps, groups, at_once, config.perturbation)
