"""The audit of a probe set: one loop that explains its images and measures the explanations."""

from __future__ import annotations

import gc
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from libragrad_lightning.attribution import Explanation, explain_methods
from libragrad_lightning.attribution.rewards import reward_function
from libragrad_lightning.audit.budget import TimeBudget
from libragrad_lightning.audit.chunks import ExplainedChunk, Part
from libragrad_lightning.audit.completeness import sums_of
from libragrad_lightning.audit.config import AuditConfig
from libragrad_lightning.audit.image_scores import (
    MOST_SCORED,
    ImageScores,
    drawn_scores,
    joined_scores,
)
from libragrad_lightning.audit.keys import Key
from libragrad_lightning.audit.learning import Learned
from libragrad_lightning.audit.measurement import Measurement
from libragrad_lightning.audit.metric_inputs import MetricInputs
from libragrad_lightning.audit.precision import floating_dtype
from libragrad_lightning.audit.probe_set import ProbeGroup, fingerprint
from libragrad_lightning.audit.readings import Readings
from libragrad_lightning.audit.removal import Removal
from libragrad_lightning.audit.result import AuditResult
from libragrad_lightning.audit.room import images_that_fit
from libragrad_lightning.audit.rows import explained_rows
from libragrad_lightning.audit.samples import Samples, masks_of, other_masks_of
from libragrad_lightning.audit.targets import image_targets
from libragrad_lightning.audit.tasks import classes_of
from libragrad_lightning.metrics.functional.maps import is_degenerate
from libragrad_lightning.models import TokenModel, is_out_of_memory
from libragrad_lightning.perturbation.rows import FastestRows


class AuditWatcher(Protocol):
    """Looks on while an audit runs."""

    def model_read(self, model: TokenModel, images: Tensor) -> None:
        """See a model that has been read for images `[1, C, H, W]` of one size."""

    def chunk_explained(self, chunk: ExplainedChunk) -> None:
        """See images that have been explained and measured."""

    def memory_ran_out(self, size: int) -> None:
        """Hear that memory ran out with so many images at once, and that half as many follow."""


@dataclass
class AuditRun:
    """One process's part of an audit.

    Attributes:
        module: The module that is audited.
        learned: What is explained.
        config: How, and what is measured.
        previous: What the audit before found.
        watcher: Looks on.
        batch_size: How many images are explained at once; 0 until it is known how many there is
            room for, smaller after memory has run out.
        added_up: Of how many first images attributions are added up for the logit.
        readings: What audits before have read of the module.
        budget: How much time there is.
        remembered: Of about how many first maps something is kept for later audits.
        scored: Of how many images scores are kept.
    """

    module: nn.Module
    learned: Learned
    config: AuditConfig
    previous: AuditResult
    watcher: AuditWatcher
    batch_size: int
    added_up: int
    readings: Readings = field(default_factory=Readings)
    budget: TimeBudget = field(default_factory=TimeBudget)
    remembered: float = math.inf
    scored: int = MOST_SCORED
    measurement: Measurement = field(init=False)
    _maps: dict[str, dict[Key, Tensor]] = field(init=False)
    _prints: dict[Key, int] = field(default_factory=dict)
    _uninformative: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _nonfinite: int = 0
    _perturbation: str = ""
    _scores: list[ImageScores] = field(default_factory=list)
    _seconds: float = 0.0
    _peak: float | None = None
    _forgotten_images: int = 0
    _forgotten_maps: int = 0

    def __post_init__(self) -> None:
        self._device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        self._removal = Removal(self.config)
        self.measurement = Measurement(self.config, self.learned.task, self._device)
        self._maps = {name: {} for name in self.config.rule_names}

    def found(self) -> AuditResult:
        """Return what has been found so far."""
        return AuditResult(
            self._prints,
            self._maps,
            dict(self._uninformative),
            self._nonfinite,
            self._perturbation,
            self._seconds,
            self._peak,
            scores=drawn_scores(joined_scores(self._scores), self.scored).to_cpu(),
            forgotten_images=self._forgotten_images,
            forgotten_maps=self._forgotten_maps,
            deletion_rounding=self._removal.rounding,
        )

    def add(self, groups: Sequence[ProbeGroup]) -> None:
        """Explain and measure images; call it inside of `explanation_state`.

        Args:
            groups: Images of this process, by size.

        Raises:
            AuditError: If the model or the images cannot be explained.
            torch.OutOfMemoryError: If there is no room for a single image.
        """
        start = time.perf_counter()
        on_cuda = self._device.type == "cuda"
        if on_cuda:
            torch.cuda.reset_peak_memory_stats(self._device)
        for part in self._parts(groups):
            begin = time.monotonic()
            try:
                part.inputs = self._explain_part(part)
            except Exception as error:
                if not is_out_of_memory(error) or len(part.samples) == 1:
                    raise
            if part.inputs is None:
                self._halve(len(part.samples))
            else:
                self._keep(part)
                self.budget.took(len(part.samples), time.monotonic() - begin)
        if on_cuda:
            torch.cuda.synchronize(self._device)
            peak = torch.cuda.max_memory_allocated(self._device) / 2**30
            self._peak = max(peak, self._peak or 0.0)
        self._seconds += time.perf_counter() - start

    def _parts(self, groups: Sequence[ProbeGroup]) -> Iterator[Part]:
        """Yield the images in parts that are explained at once, one again if memory ran out.

        It ends when there is no more time.
        """
        call, dtype = self.learned.call, floating_dtype(self.module)
        config, task = self.config, self.learned.task
        for group in groups:
            rows = explained_rows(group, config, task)
            prints = {
                k: fingerprint(i) for k, i in zip(rows.keys, rows.samples.pixels, strict=True)
            }
            if not prints:
                continue
            changed = self.previous.changed(prints)
            first_of_all = rows.samples[slice(0, 1)].to(self._device, dtype)
            read = self._model(first_of_all)
            self.batch_size = self.batch_size or images_that_fit(read, first_of_all.pixels)
            first = sum(number < self.added_up for number in rows.numbers)
            start = 0
            while start < len(rows.keys):
                count = self.budget.images_at_once(1 if call.needs_others else self.batch_size)
                if not count:
                    return
                stop = start + count
                sums = sums_of(config, task, start < first)
                if sums != sums_of(config, task, stop <= first):
                    stop = first
                samples = rows.samples[slice(start, stop)].to(self._device, dtype)
                model = self._beside(read, samples)
                part = Part(model, rows, start, stop, samples, changed, sums, prints)
                yield part
                start = start if part.inputs is None else stop

    def _model(self, first: Samples) -> TokenModel:
        call = self.learned.call
        model = self.readings.of(self.module, first.pixels, call.beside(first.others), self.config)
        self.watcher.model_read(model, first.pixels)
        return model

    def _beside(self, model: TokenModel, samples: Samples) -> TokenModel:
        """Return the model with what the first of the images have beside them."""
        if not samples.others:
            return model
        call = self.learned.call
        return replace(model, forward=call.beside(samples.others))

    def _halve(self, size: int) -> None:
        self.batch_size = size // 2
        self.watcher.memory_ran_out(size)
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _explain_part(self, part: Part) -> list[MetricInputs]:
        model, samples = part.model, part.samples
        found = self._explain(
            model, samples.pixels, samples.labels, target=self.config.target, sums=part.sums
        )
        explanations = [by_method[""] for by_method in found]
        known = (model, samples.pixels, explanations, self.batch_size)
        fastest = self._fastest(samples.pixels)
        deletion = self._removal.logits_under_deletion(*known, fastest)
        groups = self._removal.logits_without_groups(*known)
        inputs = []
        for explanation in explanations:
            maps, rules = explanation.attribution, explanation.rules.name
            size = (maps.shape[-2], maps.shape[-1])
            inputs.append(
                MetricInputs(
                    explanation,
                    ~is_degenerate(maps),
                    masks_of(samples.masks, explanation.target),
                    samples.ignore,
                    deletion.get(rules),
                    self.previous.previous_maps(rules, part.keys, part.other_images, size),
                    other_masks_of(samples, explanation.target),
                    groups.get(rules),
                )
            )
        return inputs

    def _remember(self, part: Part) -> tuple[Key, ...]:
        """Keep the fingerprints of the first images, and return their keys."""
        keys = part.keys
        if self._forgotten_maps or len(self._prints) + len(keys) > self.remembered:
            self._forgotten_images += len(part.truth.rows)
            self._forgotten_maps += len(keys)
            return ()
        self._prints |= {key: part.prints[key] for key in keys}
        return keys

    @property
    def _explain(self) -> Callable[..., list[dict[str, Explanation]]]:
        """Explains images as the configuration says, without a call in between."""
        config, task = self.config, self.learned.task
        return partial(
            explain_methods,
            rules=config.rules,
            methods={"": config.method},
            reward=reward_function(config.reward, task),
            task=task,
            unknown=config.unknown,
        )

    def _of_class(self, model: TokenModel, images: Tensor, number: int) -> list[Explanation]:
        return [found[""] for found in self._explain(model, images, target=number, sums=())]

    def _fastest(self, images: Tensor) -> FastestRows | None:
        on_cpu = self._device.type == "cpu"
        return self.readings.fastest_rows[images.shape[1:]] if on_cpu else None

    def _keep(self, part: Part) -> None:
        keys, inputs, truth = part.keys, part.inputs or [], part.truth
        scores: dict[str, Tensor] = {}
        remembered = self._remember(part)
        for found in inputs:
            scores |= self.measurement.update(found)
            rules, maps = found.explanation.rules.name, found.explanation.attribution
            kept = maps[: len(remembered)].float().cpu()
            self._maps[rules] |= zip(remembered, kept, strict=True)
            self._uninformative[rules] += int((~found.informative).sum())
            if (removed := found.deletion or found.groups) is not None:
                self._perturbation = removed.perturbation
        outputs, task = self.learned.outputs_of(inputs[0].explanation.logits), self.learned.task
        classes, correct = classes_of(part.labels, outputs, inputs[0].explanation.target, task)
        own = ImageScores(keys, classes, correct, scores)
        self._scores.append(own)
        if sum(len(each.keys) for each in self._scores) > 2 * self.scored:
            self._scores = [drawn_scores(joined_scores(self._scores), self.scored)]
        logits = outputs[truth.rows.to(self._device)]
        self._nonfinite += int((~logits.isfinite().all(1)).sum())
        if truth.labels is not None:
            self.measurement.update_correctness(logits, truth.labels.to(self._device))
        targets = image_targets(self._of_class, self.learned, part, self.batch_size)
        values = own.scalars(self.measurement.statistics)
        self.watcher.chunk_explained(part.explained(outputs, targets, values))
