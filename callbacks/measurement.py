"""Measures the explanations of a probe set. Knows models and metrics, but no Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from libragrad_lightning.callbacks.samples import Samples
from torch import Tensor
from torchmetrics import Metric

from libragrad_lightning.attribution import Explanation, Method, Reward, Target, explain_tokens
from libragrad_lightning.backward import RuleSet, UnknownPolicy
from libragrad_lightning.metrics import (
    AOPC,
    CompletenessError,
    DeletionAccuracy,
    DeletionAccuracyDrop,
    RelativeCompletenessError,
    SegmentationAP,
    SymmetricRelevanceGain,
)
from libragrad_lightning.models import TokenModel
from libragrad_lightning.perturbation import DeletionLogits, deletion_logits


@dataclass(frozen=True)
class AuditSettings:
    """What is explained, how, and what is measured.

    Attributes:
        rules: The rule sets that are compared.
        method: The attribution method.
        reward: What is differentiated.
        target: Which classes are explained, and scored under deletion.
        metrics: Names from `METRICS`.
        levels: Deletion levels.
        batch_size: Images per explanation and rows per perturbed forward pass.
        unknown: What to do about operations without a role.
    """

    rules: tuple[RuleSet, ...]
    method: Method
    reward: Reward
    target: Target
    metrics: tuple[str, ...]
    levels: tuple[float, ...]
    batch_size: int
    unknown: UnknownPolicy


@dataclass(frozen=True)
class Evidence:
    """All that a metric may look at for one batch and one rule set.

    Attributes:
        explanation: The explanation.
        masks: Object masks, bool `[B, H, W]`, or None.
        deletion: Logits under deletion, or None if no metric asks for them.
    """

    explanation: Explanation
    masks: Tensor | None
    deletion: DeletionLogits | None


@dataclass(frozen=True)
class MetricEntry:
    """A metric of the audit: how to make it, and how to feed it.

    Attributes:
        create: Makes the metric, given the number of deletion levels.
        update: Feeds it the evidence of one batch.
        needs_deletion: Whether it looks at perturbed logits.
    """

    create: Callable[[int], Metric]
    update: Callable[[Metric, Evidence], None]
    needs_deletion: bool


def _update_completeness(metric: Metric, evidence: Evidence) -> None:
    explanation = evidence.explanation
    metric.update(explanation.fullgrad_sums[0], explanation.target_logit)


def _update_segmentation(metric: Metric, evidence: Evidence) -> None:
    if evidence.masks is not None:
        height, width = evidence.masks.shape[-2:]
        metric.update(evidence.explanation.heatmap((height, width)), evidence.masks)


def _mif(evidence: Evidence) -> Tensor:
    assert evidence.deletion is not None
    return evidence.deletion.most_influential_first


def _lif(evidence: Evidence) -> Tensor:
    assert evidence.deletion is not None
    return evidence.deletion.least_influential_first


def _update_accuracy(masked: Callable[[Evidence], Tensor]) -> Callable[[Metric, Evidence], None]:
    return lambda metric, e: metric.update(masked(e), e.explanation.target)


def _update_aopc(masked: Callable[[Evidence], Tensor]) -> Callable[[Metric, Evidence], None]:
    return lambda metric, e: metric.update(e.explanation.logits, masked(e), e.explanation.target)


METRICS: Mapping[str, MetricEntry] = {
    "mif_accuracy_drop": MetricEntry(DeletionAccuracyDrop, _update_accuracy(_mif), True),
    "lif_accuracy": MetricEntry(DeletionAccuracy, _update_accuracy(_lif), True),
    "mif_aopc": MetricEntry(AOPC, _update_aopc(_mif), True),
    "lif_aopc": MetricEntry(AOPC, _update_aopc(_lif), True),
    "srg": MetricEntry(
        SymmetricRelevanceGain,
        lambda metric, e: metric.update(_mif(e), _lif(e), e.explanation.target),
        True,
    ),
    "segmentation_ap": MetricEntry(lambda _: SegmentationAP(), _update_segmentation, False),
    "completeness_error": MetricEntry(lambda _: CompletenessError(), _update_completeness, False),
    "relative_completeness_error": MetricEntry(
        lambda _: RelativeCompletenessError(), _update_completeness, False
    ),
}
"""Every metric of the audit, by the name under which it is logged."""


@dataclass
class Measurement:
    """The metrics of one audit in the making.

    Attributes:
        settings: What is explained and measured.
        device: Where the metrics live, so that they can be synchronised between processes.
    """

    settings: AuditSettings
    device: torch.device
    _metrics: dict[tuple[str, str], Metric] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        levels = len(self.settings.levels)
        self._metrics = {
            (name, rules.name): METRICS[name].create(levels).to(self.device)
            for name in self.settings.metrics
            for rules in self.settings.rules
        }

    def explain(
        self,
        model: TokenModel,
        samples: Samples,
        progress: Callable[[Iterable[int]], Iterable[int]],
    ) -> Iterator[list[Explanation]]:
        """Explain samples in chunks, feed the metrics, and yield the explanations of each chunk."""
        size = self.settings.batch_size
        for start in progress(range(0, len(samples), size)):
            chunk = samples[slice(start, start + size)].to(self.device, samples.images.dtype)
            yield self._explain_chunk(model, chunk)

    def values(self) -> dict[str, float]:
        """Return ``metric/rules`` to value, over all processes; NaN where nothing was measured."""
        with warnings.catch_warnings():
            # No masks, or a process without samples, is no reason to worry anyone.
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            return {f"{m}/{r}": float(metric.compute()) for (m, r), metric in self._metrics.items()}

    def _explain_chunk(self, model: TokenModel, samples: Samples) -> list[Explanation]:
        settings = self.settings
        explanations = explain_tokens(
            model,
            samples.images,
            samples.labels,
            rules=settings.rules,
            method=settings.method,
            target=settings.target,
            reward=settings.reward,
            unknown=settings.unknown,
        )
        deletion = self._delete(model, samples, explanations)
        for explanation in explanations:
            rules = explanation.rules.name
            evidence = Evidence(explanation, samples.masks, deletion.get(rules))
            for name in settings.metrics:
                METRICS[name].update(self._metrics[name, rules], evidence)
        return explanations

    def _delete(
        self, model: TokenModel, samples: Samples, explanations: Sequence[Explanation]
    ) -> Mapping[str, DeletionLogits]:
        if not any(METRICS[name].needs_deletion for name in self.settings.metrics):
            return {}
        scores = {e.rules.name: e.attribution for e in explanations}
        size = 2 * len(scores) * self.settings.batch_size
        return deletion_logits(model, samples.images, scores, self.settings.levels, size)
