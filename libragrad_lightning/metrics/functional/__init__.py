"""Metrics of attribution maps as functions: one value per sample, nothing averaged."""

from __future__ import annotations

from libragrad_lightning.metrics.functional.average_drop import (
    explained_drop,
    explained_gain,
    explained_increase,
)
from libragrad_lightning.metrics.functional.bootstrap import (
    Bootstrap,
    Interval,
    bootstrap_interval,
    paired_bootstrap,
)
from libragrad_lightning.metrics.functional.coco import coco_mask_average_precision
from libragrad_lightning.metrics.functional.completeness import (
    completeness_error,
    relative_completeness_error,
)
from libragrad_lightning.metrics.functional.curves import area_under_curve
from libragrad_lightning.metrics.functional.deletion import (
    deletion_accuracy_curve,
    deletion_log_odds_drop,
    deletion_probability_drop,
    deletion_relative_drop,
    symmetric_relevance_gain,
)
from libragrad_lightning.metrics.functional.discrimination import (
    class_discrimination,
    target_discrimination,
    target_share,
)
from libragrad_lightning.metrics.functional.infidelity import infidelity, max_sensitivity
from libragrad_lightning.metrics.functional.localization import energy_inside, pointing_hits
from libragrad_lightning.metrics.functional.maps import is_degenerate
from libragrad_lightning.metrics.functional.mu_fidelity import mu_fidelity
from libragrad_lightning.metrics.functional.rank_accuracy import relevance_rank_accuracy
from libragrad_lightning.metrics.functional.salience import salience_coefficient
from libragrad_lightning.metrics.functional.scores import (
    target_accuracy,
    target_log_probability,
    target_logit,
    target_probability,
)
from libragrad_lightning.metrics.functional.segmentation import (
    mask_confusion,
    mean_iou,
    pixel_accuracy,
)
from libragrad_lightning.metrics.functional.segmentation_ap import (
    segmentation_average_precision,
    segmentation_max_f1,
)
from libragrad_lightning.metrics.functional.segmentation_curve import segmentation_precision
from libragrad_lightning.metrics.functional.similarity import (
    map_cosine_similarity,
    map_rank_correlation,
    map_structural_similarity,
)

__all__ = [
    "Bootstrap",
    "Interval",
    "area_under_curve",
    "bootstrap_interval",
    "class_discrimination",
    "coco_mask_average_precision",
    "completeness_error",
    "deletion_accuracy_curve",
    "deletion_log_odds_drop",
    "deletion_probability_drop",
    "deletion_relative_drop",
    "energy_inside",
    "explained_drop",
    "explained_gain",
    "explained_increase",
    "infidelity",
    "is_degenerate",
    "map_cosine_similarity",
    "map_rank_correlation",
    "map_structural_similarity",
    "mask_confusion",
    "max_sensitivity",
    "mean_iou",
    "mu_fidelity",
    "paired_bootstrap",
    "pixel_accuracy",
    "pointing_hits",
    "relative_completeness_error",
    "relevance_rank_accuracy",
    "salience_coefficient",
    "segmentation_average_precision",
    "segmentation_max_f1",
    "segmentation_precision",
    "symmetric_relevance_gain",
    "target_accuracy",
    "target_discrimination",
    "target_log_probability",
    "target_logit",
    "target_probability",
    "target_share",
]
