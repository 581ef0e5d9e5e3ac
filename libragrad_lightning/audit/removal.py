"""What a model makes of images without some of their patches, as metrics ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
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
from libragrad_lightning.perturbation.operators import (
    Autocast,
    Perturbation,
    perturbation_operator,
)
from libragrad_lightning.perturbation.rows import FastestRows

_COMPARED = 8
"""On how many images the effect of a lower precision is measured in every audit."""


@dataclass
class Removal:
    """Takes patches of images away.

    Attributes:
        config: What is measured.
        rounding: How much a lower precision has moved the logits under deletion: the largest
            difference, relative to their standard deviation over levels and images; None unless
            there is one.
    """

    config: AuditConfig
    rounding: float | None = None

    def logits_under_deletion(
        self,
        model: TokenModel,
        images: Tensor,
        explanations: Sequence[Explanation],
        at_once: int,
        fastest: FastestRows | None,
    ) -> Mapping[str, DeletionLogits]:
        """Return the logits under deletion by rule set; nothing if no metric asks for them.

        Args:
            model: The model.
            images: `[B, C, H, W]`.
            explanations: How they are explained, once for each rule set.
            at_once: How many images are explained at once.
            fastest: Finds out how many rows are fastest; as many as there is room for by default.
        """
        if "deletion" not in self.config.needs:
            return {}
        maps, levels = _maps(explanations), self.config.levels
        most, operator = 2 * len(maps) * at_once, self._operator(model, images)
        found = deletion_logits(model, images, maps, levels, most, operator, fastest)
        if isinstance(operator, Autocast) and self.rounding is None:
            few = {rules: scores[:_COMPARED] for rules, scores in maps.items()}
            exact = deletion_logits(model, images[:_COMPARED], few, levels, most, operator.operator)
            self.rounding = _rounding(found, exact)
        return found

    def logits_without_groups(
        self,
        model: TokenModel,
        images: Tensor,
        explanations: Sequence[Explanation],
        at_once: int,
    ) -> Mapping[str, GroupLogits]:
        """Return the logits without groups of patches by rule set, as for deletion."""
        if "groups" not in self.config.needs:
            return {}
        maps = _maps(explanations)
        groups = min(GROUPS, *(m[0].numel() for m in maps.values()))
        operator = self._operator(model, images)
        return group_logits(model, images, maps, groups, at_once, operator)

    def _operator(self, model: TokenModel, images: Tensor) -> Perturbation:
        # Chosen outside of autocast, where it can be told what changes a model and what rounds.
        operator = perturbation_operator(self.config.perturbation, model, images)
        return Autocast(operator) if self.config.deletes_in_bfloat16 else operator


def _maps(explanations: Sequence[Explanation]) -> dict[str, Tensor]:
    return {e.rules.name: e.attribution for e in explanations}


def _rounding(found: Mapping[str, DeletionLogits], exact: Mapping[str, DeletionLogits]) -> float:
    rounded, full = _curves(found), _curves(exact)
    return float((rounded - full).abs().max() / full.std().clamp(min=torch.finfo(full.dtype).tiny))


def _curves(deletion: Mapping[str, DeletionLogits]) -> Tensor:
    orders = [(d.most_influential_first, d.least_influential_first) for d in deletion.values()]
    return torch.stack([logits[:_COMPARED] for pair in orders for logits in pair])
