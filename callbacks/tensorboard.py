"""Lets TensorBoard show the same metric of all rule sets in one chart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
from libragrad_lightning.callbacks.settings import AuditSettings
from lightning.pytorch.loggers import TensorBoardLogger


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
