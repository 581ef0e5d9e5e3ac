"""The metrics of the audit: how each is made, what it is fed, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor
from torchmetrics import Metric

from libragrad_lightning.attribution import Explanation, class_logits
from libragrad_lightning.metrics import (
    AOPC,
    CompletenessError,
    DegenerateMapRate,
    DeletionAccuracy,
    DeletionAccuracyDrop,
    DeletionAUC,
    EnergyInside,
    InsertionAUC,
    LogOddsDrop,
    MapCosineSimilarity,
    MapRankCorrelation,
    MapStructuralSimilarity,
    MaskIoU,
    PixelAccuracy,
    PointingGame,
    RelativeCompletenessError,
    SegmentationAP,
    SegmentationMaxF1,
    SymmetricRelevanceGain,
)
from libragrad_lightning.metrics.functional import target_probability
from libragrad_lightning.perturbation import DeletionLogits


@dataclass(frozen=True)
class Evidence:
    """All that a metric may look at for one batch and one rule set.

    Attributes:
        explanation: The explanation.
        masks: Object masks, bool `[B, H, W]`, or None.
        deletion: Logits under deletion, or None if no metric asks for them.
        previous: The maps of the audit before, `[B, h, w]`, NaN for images it did not have; None if
            there was none.
        ignore: Pixels that do not count beside masks, bool `[B, H, W]`, or None.
    """

    explanation: Explanation
    masks: Tensor | None
    deletion: DeletionLogits | None
    previous: Tensor | None
    ignore: Tensor | None = None


Create: TypeAlias = Callable[[Sequence[float]], Metric]
"""Makes a metric, given the deletion levels."""
Update: TypeAlias = Callable[[Metric, Evidence], None]
"""Feeds a metric the evidence of one batch."""


@dataclass(frozen=True)
class MetricEntry:
    """A metric of the audit.

    Attributes:
        create: Makes the metric.
        update: Feeds it.
        needs_deletion: Whether it looks at perturbed logits.
        is_drift: Whether it is a similarity of which the distance from 1 is logged.
    """

    create: Create
    update: Update
    needs_deletion: bool = False
    is_drift: bool = False

    def value(self, metric: Metric) -> float:
        """Return the value that is logged, over all processes."""
        found = float(metric.compute())
        return 1.0 - found if self.is_drift else found


def _mif(evidence: Evidence) -> Tensor:
    assert evidence.deletion is not None
    return class_logits(evidence.deletion.most_influential_first)


def _lif(evidence: Evidence) -> Tensor:
    assert evidence.deletion is not None
    return class_logits(evidence.deletion.least_influential_first)


def _update_completeness(metric: Metric, evidence: Evidence) -> None:
    explanation = evidence.explanation
    metric.update(explanation.fullgrad_sums[0], explanation.target_logit)


def _update_with_masks(metric: Metric, evidence: Evidence) -> None:
    if evidence.masks is not None:
        height, width = evidence.masks.shape[-2:]
        heatmap = evidence.explanation.heatmap((height, width))
        metric.update(heatmap, evidence.masks, evidence.ignore)


def _update_with_map(metric: Metric, evidence: Evidence) -> None:
    metric.update(evidence.explanation.attribution)


def _update_drift(metric: Metric, evidence: Evidence) -> None:
    maps = evidence.explanation.attribution
    if evidence.previous is not None and evidence.previous.shape == maps.shape:
        metric.update(maps, evidence.previous.to(maps))


def _update_gain(metric: Metric, evidence: Evidence) -> None:
    metric.update(_mif(evidence), _lif(evidence), evidence.explanation.target)


def _update_deletion_scores(metric: Metric, evidence: Evidence) -> None:
    metric.update(target_probability(_mif(evidence), evidence.explanation.target))


def _update_insertion_scores(metric: Metric, evidence: Evidence) -> None:
    # What is left when the least influential patches go is what the most influential ones show.
    metric.update(target_probability(_lif(evidence).flip(1), evidence.explanation.target))


def _accuracy(create: Callable[[int], Metric], masked: Callable[[Evidence], Tensor]) -> MetricEntry:
    def update(metric: Metric, evidence: Evidence) -> None:
        metric.update(masked(evidence), evidence.explanation.target)

    return MetricEntry(lambda levels: create(len(levels)), update, needs_deletion=True)


def _drop(create: Callable[[int], Metric], masked: Callable[[Evidence], Tensor]) -> MetricEntry:
    def update(metric: Metric, evidence: Evidence) -> None:
        explanation = evidence.explanation
        metric.update(class_logits(explanation.logits), masked(evidence), explanation.target)

    return MetricEntry(lambda levels: create(len(levels)), update, needs_deletion=True)


def _mask(create: Callable[[], Metric]) -> MetricEntry:
    return MetricEntry(lambda _: create(), _update_with_masks)


def _drift(create: Callable[[], Metric]) -> MetricEntry:
    return MetricEntry(lambda _: create(), _update_drift, is_drift=True)


METRICS: Mapping[str, MetricEntry] = {
    "mif_accuracy_drop": _accuracy(DeletionAccuracyDrop, _mif),
    "lif_accuracy": _accuracy(DeletionAccuracy, _lif),
    "mif_aopc": _drop(AOPC, _mif),
    "lif_aopc": _drop(AOPC, _lif),
    "srg": MetricEntry(lambda s: SymmetricRelevanceGain(len(s)), _update_gain, needs_deletion=True),
    "segmentation_ap": _mask(SegmentationAP),
    "energy_inside": _mask(EnergyInside),
    "completeness_error": MetricEntry(lambda _: CompletenessError(), _update_completeness),
    "relative_completeness_error": MetricEntry(
        lambda _: RelativeCompletenessError(), _update_completeness
    ),
    "drift_cosine": _drift(MapCosineSimilarity),
    "drift_rank": _drift(MapRankCorrelation),
    "drift_ssim": _drift(MapStructuralSimilarity),
    "deletion_auc": MetricEntry(DeletionAUC, _update_deletion_scores, needs_deletion=True),
    "insertion_auc": MetricEntry(
        lambda levels: InsertionAUC([1 - level for level in reversed(levels)]),
        _update_insertion_scores,
        needs_deletion=True,
    ),
    "mif_log_odds_drop": _drop(LogOddsDrop, _mif),
    "lif_log_odds_drop": _drop(LogOddsDrop, _lif),
    "segmentation_max_f1": _mask(SegmentationMaxF1),
    "mask_iou": _mask(MaskIoU),
    "pixel_accuracy": _mask(PixelAccuracy),
    "pointing_game": _mask(PointingGame),
    "degenerate_rate": MetricEntry(lambda _: DegenerateMapRate(), _update_with_map),
}
"""Every metric of the audit, by the name under which it is logged."""

DEFAULT_METRICS = tuple(METRICS)[: tuple(METRICS).index("drift_ssim")]
"""What is measured if nothing else is asked for."""
