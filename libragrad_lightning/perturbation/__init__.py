"""Perturbations of images by their attributions: deletion curves."""

from libragrad_lightning.perturbation.deletion import (
    LEVELS,
    DeletionLogits,
    check_levels,
    deletion_logits,
)

__all__ = ["LEVELS", "DeletionLogits", "check_levels", "deletion_logits"]
