"""The metrics of the audit: how each is made, what it is fed, and where it makes sense."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor
from torchmetrics import Metric

from libragrad_lightning.attribution import Task
from libragrad_lightning.audit.metric_inputs import MetricInputs
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
    RelativeDrop,
    RelevanceRankAccuracy,
    SaCo,
    SegmentationAP,
    SegmentationMaxF1,
    SymmetricRelevanceGain,
    TargetDiscrimination,
    TargetShare,
)
from libragrad_lightning.metrics.functional import target_probability
from libragrad_lightning.metrics.functional.scores import Task as ScoreTask

Create: TypeAlias = Callable[[Sequence[float], Task], Metric]
"""Makes a metric, given the deletion levels and the task."""
Update: TypeAlias = Callable[[Metric, MetricInputs], None]
"""Feeds a metric one chunk."""


@dataclass(frozen=True)
class MetricEntry:
    """A metric of the audit.

    Attributes:
        create: Makes the metric.
        update: Feeds it.
        needs: What it needs beside the maps: ``deletion``, deletion of ``groups`` of patches,
            ``masks``, ``other_masks``, ``previous``, that attributions are added up for the
            ``logit`` or the ``reward``, or nothing.
        tasks: The tasks in which it makes sense.
        is_drift: Whether it is a similarity of which the distance from 1 is logged.
    """

    create: Create
    update: Update
    needs: str = ""
    tasks: tuple[Task, ...] = ("multiclass", "binary", "multilabel", "regression")
    is_drift: bool = False

    def value(self, metric: Metric) -> float:
        """Return the value that is logged, over all processes."""
        found = float(metric.compute())
        return 1.0 - found if self.is_drift else found


_CLASSES: tuple[Task, ...] = ("multiclass", "binary", "multilabel")


def _mif(inputs: MetricInputs) -> Tensor:
    assert inputs.deletion is not None
    return inputs.scored(inputs.deletion.most_influential_first)


def _lif(inputs: MetricInputs) -> Tensor:
    assert inputs.deletion is not None
    return inputs.scored(inputs.deletion.least_influential_first)


def _target(inputs: MetricInputs) -> Tensor:
    return inputs.scored(inputs.explanation.target)


def _update_completeness(metric: Metric, inputs: MetricInputs) -> None:
    explanation = inputs.explanation
    if explanation.logit_sums is not None:
        metric.update(explanation.logit_sums[0], explanation.target_logit)


def _update_reward_completeness(metric: Metric, inputs: MetricInputs) -> None:
    explanation = inputs.explanation
    if explanation.reward_sums is not None:
        metric.update(explanation.reward_sums[0], explanation.linear_reward)


def _update_with_masks(metric: Metric, inputs: MetricInputs) -> None:
    if inputs.masks is not None and inputs.heatmaps is not None:
        ignore = None if inputs.ignore is None else inputs.scored(inputs.ignore)
        metric.update(inputs.scored(inputs.heatmaps), inputs.scored(inputs.masks), ignore)


def _update_with_both_masks(metric: Metric, inputs: MetricInputs) -> None:
    if inputs.masks is not None and inputs.heatmaps is not None and inputs.other_masks is not None:
        ignore = None if inputs.ignore is None else inputs.scored(inputs.ignore)
        masks = (inputs.scored(inputs.masks), inputs.scored(inputs.other_masks))
        metric.update(inputs.scored(inputs.heatmaps), *masks, ignore)


def _update_with_map(metric: Metric, inputs: MetricInputs) -> None:
    metric.update(inputs.explanation.attribution)


def _update_drift(metric: Metric, inputs: MetricInputs) -> None:
    maps = inputs.explanation.attribution
    if inputs.previous is not None:
        metric.update(maps, inputs.previous.to(maps))


def _update_gain(metric: Metric, inputs: MetricInputs) -> None:
    metric.update(_mif(inputs), _lif(inputs), _target(inputs))


def _update_saco(metric: Metric, inputs: MetricInputs) -> None:
    task: Any = inputs.explanation.task
    groups, target = inputs.groups, _target(inputs)
    assert groups is not None
    intact = target_probability(inputs.scored(inputs.explanation.logits), target, task)
    left = target_probability(inputs.scored(groups.logits), target, task)
    metric.update(inputs.scored(groups.salience), intact[:, None] - left)


def _update_scores(
    metric: Metric, inputs: MetricInputs, deleted: Callable[[MetricInputs], Tensor], flip: bool
) -> None:
    task: Any = inputs.explanation.task
    scores = target_probability(deleted(inputs), _target(inputs), task)
    metric.update(scores.flip(1) if flip else scores)


def _accuracy(
    create: Callable[..., Metric], deleted: Callable[[MetricInputs], Tensor]
) -> MetricEntry:
    def update(metric: Metric, inputs: MetricInputs) -> None:
        metric.update(deleted(inputs), _target(inputs))

    def made(levels: Sequence[float], task: Task) -> Metric:
        return create(len(levels), task=task)

    return MetricEntry(made, update, "deletion", _CLASSES)


def _drop(
    create: Callable[..., Metric],
    deleted: Callable[[MetricInputs], Tensor],
    of_quantities: bool = False,
) -> MetricEntry:
    def update(metric: Metric, inputs: MetricInputs) -> None:
        intact = inputs.scored(inputs.explanation.logits)
        metric.update(intact, deleted(inputs), _target(inputs))

    def made(levels: Sequence[float], task: Task) -> Metric:
        if task == "regression":
            return RelativeDrop(len(levels))
        return create(len(levels), task=task)

    tasks = (*_CLASSES, "regression") if of_quantities else _CLASSES
    return MetricEntry(made, update, "deletion", tasks)


def _mask(create: Callable[[], Metric]) -> MetricEntry:
    return MetricEntry(lambda *_: create(), _update_with_masks, "masks")


def _masks(create: Callable[[], Metric]) -> MetricEntry:
    return MetricEntry(lambda *_: create(), _update_with_both_masks, "other_masks")


def _drift(create: Callable[[], Metric]) -> MetricEntry:
    return MetricEntry(lambda *_: create(), _update_drift, "previous", is_drift=True)


def _gain(levels: Sequence[float], task: ScoreTask) -> Metric:
    return SymmetricRelevanceGain(len(levels), task=task)


METRICS: Mapping[str, MetricEntry] = {
    "mif_accuracy_drop": _accuracy(DeletionAccuracyDrop, _mif),
    "lif_accuracy": _accuracy(DeletionAccuracy, _lif),
    "mif_aopc": _drop(AOPC, _mif, of_quantities=True),
    "lif_aopc": _drop(AOPC, _lif, of_quantities=True),
    "srg": MetricEntry(_gain, _update_gain, "deletion", _CLASSES),  # type: ignore[arg-type]
    "segmentation_ap": _mask(SegmentationAP),
    "energy_inside": _mask(EnergyInside),
    "completeness_error": MetricEntry(
        lambda *_: CompletenessError(), _update_completeness, "logit"
    ),
    "relative_completeness_error": MetricEntry(
        lambda *_: RelativeCompletenessError(), _update_completeness, "logit"
    ),
    "reward_completeness_error": MetricEntry(
        lambda *_: CompletenessError(), _update_reward_completeness, "reward"
    ),
    "degenerate_rate": MetricEntry(lambda *_: DegenerateMapRate(), _update_with_map),
    "drift_cosine": _drift(MapCosineSimilarity),
    "drift_rank": _drift(MapRankCorrelation),
    "drift_ssim": _drift(MapStructuralSimilarity),
    "deletion_auc": MetricEntry(
        lambda levels, _: DeletionAUC(levels),
        partial(_update_scores, deleted=_mif, flip=False),
        "deletion",
        _CLASSES,
    ),
    # What is left when the least influential patches go is what the most influential ones show.
    "insertion_auc": MetricEntry(
        lambda levels, _: InsertionAUC([1 - level for level in reversed(levels)]),
        partial(_update_scores, deleted=_lif, flip=True),
        "deletion",
        _CLASSES,
    ),
    "mif_log_odds_drop": _drop(LogOddsDrop, _mif),
    "lif_log_odds_drop": _drop(LogOddsDrop, _lif),
    "saco": MetricEntry(lambda *_: SaCo(), _update_saco, "groups", _CLASSES),
    "segmentation_max_f1": _mask(SegmentationMaxF1),
    "mask_iou": _mask(MaskIoU),
    "pixel_accuracy": _mask(PixelAccuracy),
    "pointing_game": _mask(PointingGame),
    "relevance_rank_accuracy": _mask(RelevanceRankAccuracy),
    "class_discrimination": _masks(TargetDiscrimination),
    "target_share": _masks(TargetShare),
}
"""Every metric of the audit, by the name under which it is logged."""

DEFAULT_METRICS = (
    "mif_accuracy_drop",
    "lif_accuracy",
    "mif_aopc",
    "lif_aopc",
    "srg",
    "segmentation_ap",
    "energy_inside",
    "completeness_error",
    "relative_completeness_error",
    "reward_completeness_error",
    "degenerate_rate",
    "drift_cosine",
    "drift_rank",
)
"""What is measured if nothing else is asked for."""
