"""What an audit found of single images, written to all loggers: a figure, tables, histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import lightning.pytorch as pl
from torch import Tensor

from libragrad_lightning.attribution import Task
from libragrad_lightning.audit import ImageScores, Key, Statistic
from libragrad_lightning.reporting.charts import RuleSetRuns
from libragrad_lightning.reporting.comparison import curve_charts, differences
from libragrad_lightning.reporting.comparison_figure import comparison_figure
from libragrad_lightning.reporting.directions import has_direction
from libragrad_lightning.reporting.score_tables import class_table, extremes_table, scores_table
from libragrad_lightning.reporting.sinks import TensorBoardSink, logger_step, trainer_sinks
from libragrad_lightning.tables import TableRows


@dataclass(frozen=True, eq=False)
class Shown:
    """What an audit found of single images, as it is shown.

    Attributes:
        figure: Curves and differences `[3, H, W]`, uint8, or None.
        tables: Tables, by name.
        note: What is to be said of all of it, or nothing.
    """

    figure: Tensor | None = None
    tables: Mapping[str, TableRows] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, eq=False)
class Findings:
    """What an audit found of each image.

    Attributes:
        scores: What metrics gave each image.
        statistics: How metrics read means over images, by their names.
        rules: The rule sets.
        levels: The shares of patches that were deleted.
        task: What the scores mean.
        class_names: Names of the classes, or None.
        tags: The tags of images that were drawn.
    """

    scores: ImageScores
    statistics: Mapping[str, Statistic]
    rules: Sequence[str]
    levels: Sequence[float]
    task: Task
    class_names: Sequence[str] | None = None
    tags: Mapping[Key, str] = field(default_factory=dict)

    def write(self, trainer: pl.Trainer, name: str, runs: RuleSetRuns) -> Shown:
        """Write all of it, and return what was shown.

        TensorBoard gets histograms of what images gave to metrics, and the differences between rule
        sets with their intervals, as charts over all audits; the figure has those of one audit, and
        goes to all loggers. Others than TensorBoard get a table of the images, from which they draw
        histograms themselves.
        """
        sinks, step = trainer_sinks(trainer), logger_step(trainer)
        if not sinks or not self.scores.keys:
            return Shown()
        found = differences(self.scores, self.rules, self.statistics)
        charts = curve_charts(self.scores, self.rules, self.levels, self.task)
        figure = comparison_figure(charts, found, self.rules, self.scores.note)
        known = (self.scores, self.rules, self.statistics)
        made = {
            "classes": class_table(*known, self.class_names),
            "best_and_worst": extremes_table(*known, self.tags),
        }
        tables = {kind: table for kind, table in made.items() if table is not None}
        for sink in sinks:
            if figure is not None:
                sink.write_images({f"{name}/curves": figure}, step)
            for kind, table in tables.items():
                said = "\n\n".join(filter(None, (table.markdown(), self.scores.note)))
                sink.write_text(f"{name}/{kind}", said, step)
        if others := [sink for sink in sinks if not isinstance(sink, TensorBoardSink)]:
            of_images = scores_table(self.scores, self.statistics)
            for sink in others:
                sink.write_table(f"{name}/scores", of_images, step)
        runs.write_differences(trainer, name, found, step)
        shown = {m: s for m, s in self.statistics.items() if has_direction(m)}
        runs.write_histograms(trainer, name, self.scores.scalars(shown), step)
        return Shown(figure, tables, self.scores.note)
