"""Taking patches away from images, and deletion and insertion curves."""

from libragrad_lightning.perturbation.deletion import (
    LEVELS,
    DeletionLogits,
    deletion_logits,
    insertion_logits,
)
from libragrad_lightning.perturbation.groups import GROUPS, GroupLogits, group_logits
from libragrad_lightning.perturbation.imputation import linear_imputation
from libragrad_lightning.perturbation.operators import (
    PERTURBATIONS,
    DropOrZeroTokens,
    DropTokens,
    ImputePixels,
    Perturbation,
    ReplacePixels,
    ZeroTokens,
    blur_fill,
    mean_fill,
    noise_fill,
    zero_fill,
)
from libragrad_lightning.perturbation.subsets import subset_logits

__all__ = [
    "GROUPS",
    "LEVELS",
    "PERTURBATIONS",
    "DeletionLogits",
    "DropOrZeroTokens",
    "DropTokens",
    "GroupLogits",
    "ImputePixels",
    "Perturbation",
    "ReplacePixels",
    "ZeroTokens",
    "blur_fill",
    "deletion_logits",
    "group_logits",
    "insertion_logits",
    "linear_imputation",
    "mean_fill",
    "noise_fill",
    "subset_logits",
    "zero_fill",
]
