"""Taking patches away from images, and deletion and insertion curves."""

from libragrad_lightning.perturbation.deletion import (
    LEVELS,
    DeletionLogits,
    check_levels,
    deletion_logits,
    insertion_logits,
)
from libragrad_lightning.perturbation.groups import GROUPS, GroupLogits, group_logits
from libragrad_lightning.perturbation.operators import (
    PERTURBATIONS,
    DropOrZeroTokens,
    DropTokens,
    Perturbation,
    ReplacePixels,
    ZeroTokens,
    blur_fill,
    mean_fill,
    noise_fill,
    perturbation_operator,
    zero_fill,
)
from libragrad_lightning.perturbation.rows import FastestRows

__all__ = [
    "GROUPS",
    "LEVELS",
    "PERTURBATIONS",
    "DeletionLogits",
    "DropOrZeroTokens",
    "DropTokens",
    "FastestRows",
    "GroupLogits",
    "Perturbation",
    "ReplacePixels",
    "ZeroTokens",
    "blur_fill",
    "check_levels",
    "deletion_logits",
    "group_logits",
    "insertion_logits",
    "mean_fill",
    "noise_fill",
    "perturbation_operator",
    "zero_fill",
]
