"""Metrics of attribution maps as functions: one value per sample, nothing averaged."""

from __future__ import annotations

from libragrad_lightning.metrics.functional.completeness import (
    completeness_error,
    relative_completeness_error,
)
from libragrad_lightning.metrics.functional.deletion import (
    deletion_accuracy_curve,
    deletion_log_odds_drop,
    deletion_probability_drop,
    symmetric_relevance_gain,
)
from libragrad_lightning.metrics.functional.segmentation_ap import segmentation_average_precision

__all__ = [
    "completeness_error",
    "deletion_accuracy_curve",
    "deletion_log_odds_drop",
    "deletion_probability_drop",
    "relative_completeness_error",
    "segmentation_average_precision",
    "symmetric_relevance_gain",
]
