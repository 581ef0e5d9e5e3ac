"""Publishes an audit: its values, its place in the history, and what the user should know of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from libragrad_lightning.attribution import Task
from libragrad_lightning.attribution.tasks import ScoringModule
from libragrad_lightning.audit import (
    AuditConfig,
    AuditHistory,
    AuditRecord,
    AuditResult,
    ImageScores,
    Statistic,
)
from libragrad_lightning.diagnosis import CoverageReport
from libragrad_lightning.monitoring.notices import Notices
from libragrad_lightning.monitoring.remarks import Remarks
from libragrad_lightning.monitoring.weights import ExplainedWeights
from libragrad_lightning.reporting import (
    AuditPage,
    DrawnPanel,
    Extremes,
    Findings,
    PanelDrawer,
    Pictures,
    RuleSetRuns,
    Shown,
    Strips,
    logger_step,
    trainer_sinks,
    unwritable_folder,
    write_coverage,
    write_history,
    write_images,
    write_page,
)


class Publisher:
    """Turns what audits find into records, pictures and tables, and says what is odd about it.

    Args:
        config: What was asked for.
        pictures: How probe images are drawn.
        num_images: How many are drawn.
        notices: Where to say something once.
        name: First part of the names of what is written.

    Attributes:
        count: How many are drawn.
    """

    def __init__(
        self,
        config: AuditConfig,
        pictures: Pictures,
        num_images: int,
        notices: Notices,
        name: str,
    ) -> None:
        self.history = AuditHistory()
        self.name = name
        self.count = num_images
        self._config, self._pictures = config, pictures
        self._notices, self._remarks = notices, Remarks(config, notices)
        self._writes = True
        self._runs = RuleSetRuns()
        self._coverage: Sequence[CoverageReport] = ()
        self._drawn: dict[int, DrawnPanel] = {}
        self._panels: Sequence[DrawnPanel] = ()
        self._shown = Shown()
        self._strips = Strips()

    def begin_anew(self) -> None:
        """Forget all audits."""
        self.history.begin_anew()
        self._strips.begin_anew()

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into a checkpoint: plain values and tensors."""
        return {"history": self.history.state_dict(), "strips": self._strips.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.history.load_state_dict(state["history"])
        self._strips.load_state_dict(state["strips"])

    def start(self, trainer: pl.Trainer) -> None:
        """Look whether pictures and tables can be written."""
        self._coverage, self._drawn, self._panels, self._shown = (), {}, (), Shown()
        folder = unwritable_folder(trainer)
        self._writes = folder is None
        if folder is not None:
            self._notices.warn(
                f"LibraGradAudit cannot write pictures to {folder}; pass a `default_root_dir` that "
                "can be written, or a logger that takes pictures, to the Trainer."
            )

    def drawer(self, trainer: pl.Trainer, most: int | None = None) -> PanelDrawer:
        """Return what draws the first images of the probe set, if anything takes pictures."""
        count, self._drawn = self.count if most is None else min(self.count, most), {}
        if not (count and self._writes and trainer_sinks(trainer)):
            return PanelDrawer(self._pictures, 0)
        module = trainer.lightning_module
        scoring = [m for m in module.modules() if isinstance(m, ScoringModule)]
        named = scoring if len(scoring) == 1 else []
        owners = [trainer.datamodule, module, *named]  # type: ignore[attr-defined]
        # Of several processes, none knows of the others' images; with a limit every picture counts.
        finds_extremes = trainer.world_size == 1 and most is None
        extremes = Extremes() if finds_extremes else None
        return PanelDrawer(self._pictures.filled(owners), count, extremes)

    def previous(self, trainer: pl.Trainer) -> AuditResult:
        """Return what an audit is compared with."""
        # Outside of a fit other images may lie in the same places, or these very weights.
        return self.history.last if trainer.state.fn == "fit" else AuditResult()

    def write_coverage(self, trainer: pl.Trainer, reports: Sequence[CoverageReport]) -> None:
        """Write which rule every operation gets."""
        self._coverage = reports
        with self._writing():
            if self._writes:
                write_coverage(trainer, self.name, reports)

    def write_images(self, trainer: pl.Trainer, drawer: PanelDrawer, prefix: str) -> None:
        """Write the panels that were drawn."""
        self._drawn, self._panels = drawer.drawn, drawer.panels()
        with self._writing():
            write_images(trainer, drawer.named(prefix))

    def write_findings(
        self,
        trainer: pl.Trainer,
        drawer: PanelDrawer,
        prefix: str,
        scores: ImageScores,
        statistics: Mapping[str, Statistic],
        task: Task,
    ) -> None:
        """Write what was found of single images, if there is time for a panel, too.

        Args:
            trainer: The Trainer.
            drawer: What was drawn.
            prefix: First part of the names.
            scores: What metrics gave each image, over all processes.
            statistics: How metrics read means over images, by their names.
            task: What the scores mean.
        """
        rules, levels = self._config.rule_names, self._config.levels
        named = {panel.key: f"{prefix}/{panel.tag}" for panel in drawer.drawn.values()}
        if self._writes and (drawer.count or not self.count):
            with self._writing():
                known = scores, statistics, rules, levels, task, drawer.class_names, named
                found = Findings(*known)
                self._shown = found.write(trainer, prefix, self._runs)

    def write_history(self, trainer: pl.Trainer) -> None:
        """Write the table of all audits."""
        with self._writing():
            if self._writes:
                write_history(trainer, self.name, self.history.records)

    def close(self, trainer: pl.Trainer, name: str, count: int) -> None:
        """Write the page of the last audits, and after a fit the table and the strips of all.

        Args:
            trainer: The Trainer.
            name: The name of its file.
            count: How many audits it is about.
        """
        self._runs.close()
        strips = self._strips.drawn() if trainer.state.fn == "fit" and self._writes else {}
        if trainer.state.fn == "fit":
            self.write_history(trainer)
            with self._writing():
                write_images(trainer, {f"{name}/{tag}": found for tag, found in strips.items()})
        records = self.history.records[len(self.history.records) - count :]
        if not (records and self._writes):
            return
        page = AuditPage(
            self.name,
            self._config.rule_names,
            self._config.state(),
            records,
            {panel.tag: panel.picture for panel in self._panels},
            strips,
            self._shown,
            self._coverage,
            self._notices.sentences,
        )
        with self._writing():
            write_page(trainer, name, page.html(), page.json())

    def record(
        self,
        trainer: pl.Trainer,
        result: AuditResult,
        measured: Mapping[str, float],
        task: Task,
        weights: ExplainedWeights,
    ) -> AuditRecord:
        """Add an audit to the history, and return its record.

        Args:
            trainer: The Trainer.
            result: What was found, over all processes.
            measured: The values of the metrics, NaN where nothing was measured.
            task: What the scores mean.
            weights: Which weights were explained.
        """
        fits, tests = trainer.state.fn == "fit", trainer.state.fn == "test"
        self._remarks.say_what_is_missing(result, measured, task)
        if not tests:
            self._remarks.say_what_is_not_there(result)
        if fits:
            changed = self.history.changed(result.fingerprints)
            self._remarks.say_what_changed(result, changed)
        record = AuditRecord(
            weights.epoch,
            logger_step(trainer),
            self.history.kept(measured) if fits else {k: v for k, v in measured.items() if v == v},
            result.seconds,
            result.samples,
            weights.label,
            result.perturbation,
            result.peak_memory_gib,
            result.deletion_rounding,
        )
        self.history.add(record, self.history.last if tests else result)
        if fits:
            self._strips.add(self._drawn, record)
        with self._writing():
            prefix = f"test_{self.name}" if tests else self.name
            self._runs.write(trainer, prefix, record.values, record.step)
        return record

    def say_that_nothing_was_seen(self) -> None:
        """Say that there was no image to explain."""
        rank_zero_warn(
            "LibraGradAudit has seen no image to explain; `dataloader_idx` and `probe` say which "
            "ones it takes."
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Do without pictures and tables if they cannot be written."""
        try:
            yield
        except OSError as error:
            self._writes = False
            self._notices.warn(
                f"LibraGradAudit cannot write its pictures and tables ({error}) and goes on "
                "without them; pass a logger that takes pictures to the Trainer."
            )


def costs(record: AuditRecord, limited: bool) -> dict[str, float]:
    """Return what an audit took, lost by rounding, and how many images, if these are limited."""
    found = {"seconds": record.seconds}
    if record.peak_memory_gib is not None:
        found["peak_memory_gib"] = record.peak_memory_gib
    if record.deletion_rounding is not None:
        found["deletion_rounding"] = record.deletion_rounding
    if limited:
        found["samples"] = float(record.samples)
    return found
