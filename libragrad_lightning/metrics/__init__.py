"""Metrics of attribution maps as ``torchmetrics`` classes; see ``functional`` for their twins."""

from __future__ import annotations

from libragrad_lightning.metrics.completeness import CompletenessError, RelativeCompletenessError
from libragrad_lightning.metrics.deletion import DeletionAccuracy, DeletionAccuracyDrop
from libragrad_lightning.metrics.probability_drop import AOPC, LogOddsDrop
from libragrad_lightning.metrics.relevance_gain import SymmetricRelevanceGain
from libragrad_lightning.metrics.segmentation_ap import SegmentationAP

__all__ = [
    "AOPC",
    "CompletenessError",
    "DeletionAccuracy",
    "DeletionAccuracyDrop",
    "LogOddsDrop",
    "RelativeCompletenessError",
    "SegmentationAP",
    "SymmetricRelevanceGain",
]
