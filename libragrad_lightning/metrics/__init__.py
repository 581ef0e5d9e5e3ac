"""Metrics of attribution maps as ``torchmetrics`` classes; see ``functional`` for their twins."""

from __future__ import annotations

from libragrad_lightning.metrics.average_drop import AverageDrop, AverageGain, AverageIncrease
from libragrad_lightning.metrics.coco_mask_ap import CocoMaskAP
from libragrad_lightning.metrics.completeness import CompletenessError, RelativeCompletenessError
from libragrad_lightning.metrics.confidence import ConfidenceInterval, PairedDifference
from libragrad_lightning.metrics.curves import (
    DeletionAUC,
    DeletionCurve,
    InsertionAUC,
    InsertionCurve,
)
from libragrad_lightning.metrics.degenerate_maps import DegenerateMapRate
from libragrad_lightning.metrics.deletion import DeletionAccuracy, DeletionAccuracyDrop
from libragrad_lightning.metrics.discrimination import (
    ClassDiscrimination,
    TargetDiscrimination,
    TargetShare,
)
from libragrad_lightning.metrics.infidelity import Infidelity, MaxSensitivity
from libragrad_lightning.metrics.localization import EnergyInside, PointingGame
from libragrad_lightning.metrics.mu_fidelity import MuFidelity
from libragrad_lightning.metrics.probability_drop import AOPC, LogOddsDrop
from libragrad_lightning.metrics.rank_accuracy import RelevanceRankAccuracy
from libragrad_lightning.metrics.relative_drop import RelativeDrop
from libragrad_lightning.metrics.relevance_gain import SymmetricRelevanceGain
from libragrad_lightning.metrics.salience import SaCo
from libragrad_lightning.metrics.segmentation import MaskIoU, PixelAccuracy
from libragrad_lightning.metrics.segmentation_ap import SegmentationAP, SegmentationMaxF1
from libragrad_lightning.metrics.similarity import (
    MapCosineSimilarity,
    MapRankCorrelation,
    MapStructuralSimilarity,
)

__all__ = [
    "AOPC",
    "AverageDrop",
    "AverageGain",
    "AverageIncrease",
    "ClassDiscrimination",
    "CocoMaskAP",
    "CompletenessError",
    "ConfidenceInterval",
    "DegenerateMapRate",
    "DeletionAUC",
    "DeletionAccuracy",
    "DeletionAccuracyDrop",
    "DeletionCurve",
    "EnergyInside",
    "Infidelity",
    "InsertionAUC",
    "InsertionCurve",
    "LogOddsDrop",
    "MapCosineSimilarity",
    "MapRankCorrelation",
    "MapStructuralSimilarity",
    "MaskIoU",
    "MaxSensitivity",
    "MuFidelity",
    "PairedDifference",
    "PixelAccuracy",
    "PointingGame",
    "RelativeCompletenessError",
    "RelativeDrop",
    "RelevanceRankAccuracy",
    "SaCo",
    "SegmentationAP",
    "SegmentationMaxF1",
    "SymmetricRelevanceGain",
    "TargetDiscrimination",
    "TargetShare",
]
