"""One process's part of an audit: explains its images, measures them, and draws some."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import lightning.pytorch as pl
import torch
from libragrad_lightning.callbacks.measurement import Measurement
from libragrad_lightning.callbacks.pictures import PictureSettings, draw_panels
from libragrad_lightning.callbacks.samples import Samples
from libragrad_lightning.callbacks.settings import AuditSettings
from torch import Tensor

from libragrad_lightning.models import TokenModel


@dataclass(frozen=True)
class Findings:
    """What an audit found in one process.

    Attributes:
        measurement: The metrics, not yet synchronised.
        maps: `[N, h, w]`, float32 on the CPU, by rule set.
        panels: Pictures, uint8 `[3, H, W]`.
        seconds: How long it took.
        peak_memory_gib: The most CUDA memory that was in use meanwhile, in GiB; None on others.
    """

    measurement: Measurement
    maps: Mapping[str, Tensor]
    panels: list[Tensor]
    seconds: float
    peak_memory_gib: float | None


Progress = Callable[[Iterable[int]], Iterable[int]]


def explain_probe(
    module: pl.LightningModule,
    read: Callable[[Tensor], TokenModel],
    samples: Samples | None,
    previous: Mapping[str, Tensor],
    settings: AuditSettings,
    pictures: PictureSettings,
    progress: Progress,
) -> Findings:
    """Explain, measure and draw samples; call it inside of `explanation_state`.

    Args:
        module: The module.
        read: Reads it as a token model, given an image.
        samples: On the CPU, in the module's dtype; None if this process has none.
        previous: Earlier maps of the same samples, by rule set.
        settings: What is explained and measured.
        pictures: How it is drawn.
        progress: Shows how far it is.
    """
    measurement = Measurement(settings, module.device)
    if samples is None:
        return Findings(measurement, {}, [], 0.0, None)
    watch = _Watch(module.device)
    model = read(samples.images[:1].to(module.device))
    maps: dict[str, list[Tensor]] = {rules.name: [] for rules in settings.rules}
    panels: list[Tensor] = []
    for explanations in measurement.explain(model, samples, previous, progress):
        start = sum(len(part) for part in maps[settings.rules[0].name])
        for explanation in explanations:
            maps[explanation.rules.name].append(explanation.attribution.float().cpu())
        wanted = min(settings.batch_size, len(samples) - start, pictures.count - start)
        if wanted > 0:
            drawn = samples[slice(start, start + wanted)]
            panels += draw_panels(drawn, explanations, pictures)
    joined = {rules: torch.cat(parts) for rules, parts in maps.items()}
    return watch.stopped(Findings(measurement, joined, panels, 0.0, None))


class _Watch:
    """Measures time and, on CUDA, the peak of memory."""

    def __init__(self, device: torch.device) -> None:
        self._start, self._device = time.perf_counter(), device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def stopped(self, findings: Findings) -> Findings:
        """Return the findings with what was measured."""
        peak = None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            peak = torch.cuda.max_memory_allocated(self._device) / 2**30
        seconds = time.perf_counter() - self._start
        return replace(findings, seconds=seconds, peak_memory_gib=peak)
