"""Measures the explanations of a probe set. Knows models and metrics, but no Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from libragrad_lightning.callbacks.audit_metrics import METRICS, Evidence
from libragrad_lightning.callbacks.samples import Samples
from libragrad_lightning.callbacks.settings import AuditSettings
from torch import Tensor
from torchmetrics import Metric

from libragrad_lightning.attribution import Explanation, explain_tokens
from libragrad_lightning.models import TokenModel
from libragrad_lightning.perturbation import DeletionLogits, deletion_logits


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
        levels = self.settings.levels
        self._metrics = {
            (name, rules.name): METRICS[name].create(levels).to(self.device)
            for name in self.settings.metrics
            for rules in self.settings.rules
        }

    def explain(
        self,
        model: TokenModel,
        samples: Samples,
        previous: Mapping[str, Tensor],
        progress: Callable[[Iterable[int]], Iterable[int]],
    ) -> Iterator[list[Explanation]]:
        """Explain samples in chunks, feed the metrics, and yield the explanations of each chunk.

        Args:
            model: The model.
            samples: What is explained.
            previous: Earlier maps of the same samples `[N, h, w]`, by rule set; empty if there are
                none.
            progress: Shows how far it is.
        """
        size = self.settings.batch_size
        for start in progress(range(0, len(samples), size)):
            rows = slice(start, start + size)
            chunk = samples[rows].to(self.device, samples.images.dtype)
            yield self._explain_chunk(model, chunk, {k: maps[rows] for k, maps in previous.items()})

    def values(self) -> dict[str, float]:
        """Return ``metric/rules`` to value, over all processes; NaN where nothing was measured."""
        with warnings.catch_warnings():
            # No masks, or a process without samples, is no reason to worry anyone.
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            return {f"{m}/{r}": METRICS[m].value(found) for (m, r), found in self._metrics.items()}

    def _explain_chunk(
        self, model: TokenModel, samples: Samples, previous: Mapping[str, Tensor]
    ) -> list[Explanation]:
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
            evidence = Evidence(
                explanation,
                samples.masks,
                deletion.get(rules),
                previous.get(rules),
                samples.ignore,
            )
            for name in settings.metrics:
                METRICS[name].update(self._metrics[name, rules], evidence)
        return explanations

    def _delete(
        self, model: TokenModel, samples: Samples, explanations: Sequence[Explanation]
    ) -> Mapping[str, DeletionLogits]:
        settings = self.settings
        if not any(METRICS[name].needs_deletion for name in settings.metrics):
            return {}
        scores = {e.rules.name: e.attribution for e in explanations}
        size = 2 * len(scores) * settings.batch_size
        return deletion_logits(
            model, samples.images, scores, settings.levels, size, settings.perturbation
        )
