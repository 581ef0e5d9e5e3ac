"""Lets TensorBoard show rule sets as runs beside the main one, each in a color of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter


def announce_charts(trainer: pl.Trainer, name: str, metrics: Sequence[str]) -> None:
    """Let TensorBoard's custom scalars show each metric of all rule sets in one chart.

    Args:
        trainer: The Trainer.
        name: First part of the log keys.
        metrics: Names of the metrics.
    """
    # Only the runs of rule sets have a tag that ends there.
    charts = {metric: ["Multiline", [f"{name}/{metric}$"]] for metric in metrics}
    for logger in _boards(trainer):
        logger.experiment.add_custom_scalars({name: charts})


class RuleSetRuns:
    """Writes the values of every rule set as a run of TensorBoard's in the main one's folder.

    There a metric has one chart, ``<name>/<metric>``, in which color means the rule set.
    """

    def __init__(self) -> None:
        self._writers: dict[str, SummaryWriter] = {}

    def write(self, trainer: pl.Trainer, name: str, values: Mapping[str, float], step: int) -> None:
        """Write values, by ``metric/rules``, to every TensorBoard logger of a Trainer."""
        for logger in _boards(trainer):
            for key, value in values.items():
                metric, _, rules = key.partition("/")
                if rules:
                    writer = self._writer(f"{logger.log_dir}/{rules}")
                    writer.add_scalar(f"{name}/{metric}", value, step)
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Close the files; they are opened again when there is more to write."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, folder: str) -> SummaryWriter:
        if folder not in self._writers:
            self._writers[folder] = SummaryWriter(folder)
        return self._writers[folder]


def _boards(trainer: pl.Trainer) -> Iterator[Any]:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            yield logger
