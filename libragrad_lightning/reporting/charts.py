"""Lets TensorBoard show the same metric of all rule sets in one chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger


def announce_charts(
    trainer: pl.Trainer, name: str, metrics: Sequence[str], rules: Sequence[str]
) -> None:
    """Let TensorBoard's custom scalars show each metric of all rule sets in one chart.

    Args:
        trainer: The Trainer.
        name: First part of the log keys.
        metrics: Names of the metrics.
        rules: Names of the rule sets.
    """
    charts = {
        metric: ["Multiline", [f"{name}/{metric}/{rule_set}" for rule_set in rules]]
        for metric in metrics
    }
    for writer in _writers(trainer):
        writer.add_custom_scalars({name: charts})


def _writers(trainer: pl.Trainer) -> Iterator[Any]:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            yield logger.experiment
