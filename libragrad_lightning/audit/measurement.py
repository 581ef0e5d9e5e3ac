"""The metrics of one audit in the making."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from libragrad_lightning.attribution import Task
from libragrad_lightning.audit.config import AuditConfig
from libragrad_lightning.audit.image_scores import Statistic, latest_scores
from libragrad_lightning.audit.metric_inputs import MetricInputs
from libragrad_lightning.audit.metric_table import METRICS
from libragrad_lightning.audit.summed_states import summed_states
from libragrad_lightning.audit.tasks import correctness, has_label
from libragrad_lightning.metrics.sample_mean import SampleMean


class Measurement:
    """Feeds the metrics of every rule set, and reads them.

    Args:
        config: What is measured.
        task: What the scores mean.
        device: Where the metrics live, so that they can be synchronised between processes.
    """

    def __init__(self, config: AuditConfig, task: Task, device: torch.device) -> None:
        self._names = [name for name in config.metrics if task in METRICS[name].tasks]
        self._metrics = {
            (name, rules.name): METRICS[name].create(config.levels, task).to(device)
            for name in self._names
            for rules in config.rules
        }
        self._own = {
            (type(metric).__name__, rules.name): metric.clone().to(device)
            for metric in config.own_metrics
            for rules in config.rules
        }
        self._means: dict[str, dict[str, SampleMean]] = {r.name: {} for r in config.rules}
        for (name, of_rules), metric in (self._metrics | self._own).items():
            if isinstance(metric, SampleMean):
                self._means[of_rules][name] = metric
        self._correctness = MeanMetric(nan_strategy="ignore").to(device)
        self._task: Task = task

    def update(self, inputs: MetricInputs) -> dict[str, Tensor]:
        """Feed all metrics of a rule set one chunk.

        Returns:
            What each image gave to metrics that are means over images, `[B, *shape]`, by
            ``metric/rules``.
        """
        rules = inputs.explanation.rules.name
        some = bool(inputs.informative.any())
        means = self._means[rules]
        for metric in means.values():
            metric.latest = None
        for name in self._names:
            entry = METRICS[name]
            if some or entry.needs not in ("deletion", "groups", "masks", "other_masks"):
                entry.update(self._metrics[name, rules], inputs)
        for (_, of_rules), own in self._own.items():
            if of_rules == rules and some:
                own.update(**own._filter_kwargs(**inputs.named()))
        found = {name: latest_scores(metric, inputs) for name, metric in means.items()}
        return {f"{name}/{rules}": scores for name, scores in found.items() if scores is not None}

    @property
    def statistics(self) -> dict[str, Statistic]:
        """How metrics read means over images, by their names, of those that are such means."""
        every = (means.items() for means in self._means.values())
        return {name: metric.statistic for means in every for name, metric in means}

    def update_correctness(self, logits: Tensor, labels: Tensor | None) -> None:
        """Feed what tells how often the model is right."""
        if labels is not None:
            there = has_label(labels)
            if bool(there.any()):
                self._correctness.update(correctness(logits[there], labels[there], self._task))

    def values(self) -> dict[str, float]:
        """Return ``metric/rules`` to value, over all processes; NaN where nothing was measured.

        How often the model is right has no rule set in its name.
        """
        every = [*self._metrics.values(), *self._own.values(), self._correctness]
        with summed_states(every), warnings.catch_warnings():
            # No masks, or a process without samples, is no reason to worry anyone.
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            found = {f"{m}/{r}": METRICS[m].value(x) for (m, r), x in self._metrics.items()}
            found |= {f"{m}/{r}": float(x.compute()) for (m, r), x in self._own.items()}
            right = float(self._correctness.compute())
        return found | {correctness_name(self._task): right}


def correctness_name(task: Task) -> str:
    """Return under which name it is logged how right the model is."""
    return "mean_absolute_error" if task == "regression" else "accuracy"


def reasons_for_missing(
    names: Sequence[str], values: Mapping[str, float], task: Task
) -> dict[str, str]:
    """Return why metrics that were asked for have no value, by their names.

    Args:
        names: What was asked for.
        values: What was measured, NaN or missing where nothing was.
        task: What the scores mean.
    """
    measured = {key.partition("/")[0] for key, value in values.items() if value == value}
    reasons = {}
    for name in names:
        entry = METRICS[name]
        if name in measured or entry.needs == "previous":
            continue
        if task not in entry.tasks:
            reasons[name] = f"is not defined for {task} tasks"
        elif entry.needs == "masks":
            reasons[name] = "needs object masks, and the validation batches have none that count"
        elif entry.needs == "other_masks":
            reasons[name] = (
                "needs masks of two objects in an image, `mask` and `other_mask` in the validation "
                "batches, and there are none that count"
            )
        else:
            reasons[name] = "has no image with a finite map that tells patches apart"
    return reasons
