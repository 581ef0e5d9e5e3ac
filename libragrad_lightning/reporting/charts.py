"""Lets TensorBoard show rule sets as runs beside the main one, each in a color of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from libragrad_lightning.both_lightnings import in_both
from libragrad_lightning.reporting.comparison import Difference
from libragrad_lightning.reporting.directions import has_direction

_BINS = "sqrt"
"""As numpy names it: as many bins as the root of the number of images. Those of TensorBoard's own
choice take ten times the space, and it shows thirty of them."""
_ENDS = ("value", "lower", "upper")
_LAYOUTS: WeakKeyDictionary[SummaryWriter, dict[str, Any]] = WeakKeyDictionary()
"""What audits have announced, by the writer."""


def announce_charts(
    trainer: pl.Trainer, name: str, metrics: Sequence[str], rules: Sequence[str]
) -> None:
    """Let TensorBoard's custom scalars show each metric of all rule sets in one chart.

    Below them, each metric that says how good maps are has a chart of its difference between rule
    sets, as a line within the margin of its 95 % interval: whether a rule set is better is to be
    seen over all audits, where bands around each of two curves would not tell, since both are of
    the same images. The figure of an audit shows the differences of all metrics beside each other.

    Args:
        trainer: The Trainer.
        name: First part of the log keys.
        metrics: Names of the metrics.
        rules: The rule sets.
    """
    # Only the runs of rule sets have a tag that ends there.
    charts = {metric: ["Multiline", [f"{name}/{metric}$"]] for metric in metrics}
    margins = {
        metric: ["Margin", [f"{_difference(name)}/{metric}/{end}" for end in _ENDS]]
        for metric in metrics
        if has_direction(metric)
    }
    layout = {name: charts}
    if len(rules) > 1:
        others = ", ".join(rules[1:])
        layout[f"{name}: {others} less {rules[0]}, with 95 % intervals"] = margins
    for logger in _boards(trainer):
        # TensorBoard shows the last layout of a run, so that this one is to hold those before it.
        whole = _LAYOUTS.setdefault(logger.experiment, {})
        whole.update(layout)
        logger.experiment.add_custom_scalars(whole)


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
        self._flush()

    def write_differences(
        self, trainer: pl.Trainer, name: str, differences: Sequence[Difference], step: int
    ) -> None:
        """Write differences and their intervals, a run for each pair of rule sets."""
        for logger in _boards(trainer):
            for d in differences:
                writer = self._writer(f"{logger.log_dir}/{d.rules} less {d.baseline}")
                for end in _ENDS:
                    tag = f"{_difference(name)}/{d.metric}/{end}"
                    writer.add_scalar(tag, getattr(d, end), step)
        self._flush()

    def write_histograms(
        self, trainer: pl.Trainer, name: str, values: Mapping[str, Tensor], step: int
    ) -> None:
        """Write what images gave to metrics, `[N]` by ``metric/rules``, as histograms."""
        for logger in _boards(trainer):
            for key, found in values.items():
                metric, _, rules = key.partition("/")
                finite = found[found.isfinite()]
                if len(finite):
                    writer = self._writer(f"{logger.log_dir}/{rules}")
                    writer.add_histogram(f"{name}_per_image/{metric}", finite, step, bins=_BINS)
        self._flush()

    def close(self) -> None:
        """Close the files; they are opened again when there is more to write."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()

    def _writer(self, folder: str) -> SummaryWriter:
        if folder not in self._writers:
            self._writers[folder] = SummaryWriter(folder)
        return self._writers[folder]


def _difference(name: str) -> str:
    return f"{name}_difference"


def _boards(trainer: pl.Trainer) -> Iterator[Any]:
    for logger in trainer.loggers:
        if isinstance(logger, in_both(TensorBoardLogger)) and trainer.is_global_zero:
            yield logger
