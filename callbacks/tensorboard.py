"""Writes what is no scalar: pictures and texts to all sinks, shared charts to TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
from libragrad_lightning.callbacks.settings import AuditSettings
from libragrad_lightning.callbacks.sinks import trainer_sinks
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from libragrad_lightning.diagnosis import CoverageReport


def log_panels(trainer: pl.Trainer, name: str, panels: Sequence[Tensor]) -> None:
    """Write panels, uint8 `[3, H, W]`, as ``<name>/image_000`` and so on."""
    for sink in trainer_sinks(trainer):
        for i, panel in enumerate(panels):
            sink.write_image(f"{name}/image_{i:03d}", panel, trainer.global_step)


def log_coverage(trainer: pl.Trainer, name: str, reports: Sequence[CoverageReport]) -> None:
    """Write coverage reports as texts, ``<name>/coverage/<rules>``."""
    for sink in trainer_sinks(trainer):
        for report in reports:
            tag = f"{name}/coverage/{report.rules}"
            sink.write_text(tag, report.markdown(), trainer.global_step)


def announce_charts(trainer: pl.Trainer, name: str, settings: AuditSettings) -> None:
    """Let TensorBoard's custom scalars show each metric of all rule sets in one chart."""
    charts = {
        metric: ["Multiline", [f"{name}/{metric}/{rules.name}" for rules in settings.rules]]
        for metric in settings.metrics
    }
    for writer in _writers(trainer):
        writer.add_custom_scalars({name: charts})


def _writers(trainer: pl.Trainer) -> Iterator[Any]:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            yield logger.experiment
