"""Publishes an audit: its values, its place in the history, and what the user should know of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from libragrad_lightning.attribution import ScoringModule, Task
from libragrad_lightning.audit import (
    AuditConfig,
    AuditHistory,
    AuditRecord,
    AuditResult,
    reasons_for_missing,
)
from libragrad_lightning.diagnosis import CoverageReport
from libragrad_lightning.monitoring.notices import Notices
from libragrad_lightning.monitoring.weights import ExplainedWeights
from libragrad_lightning.reporting import (
    AuditPage,
    PanelDrawer,
    Pictures,
    RuleSetRuns,
    logger_step,
    trainer_sinks,
    unwritable_folder,
    write_coverage,
    write_history,
    write_images,
    write_page,
)

_LARGEST_ERROR = 0.01
"""The largest relative completeness error of LibraGrad that passes without a word."""


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
        self._notices, self._writes = notices, True
        self._runs = RuleSetRuns()
        self._coverage: Sequence[CoverageReport] = ()
        self._drawn: dict[str, dict[int, Tensor]] = {}

    def start(self, trainer: pl.Trainer) -> None:
        """Look whether pictures and tables can be written."""
        self._coverage, self._drawn = (), {}
        folder = unwritable_folder(trainer)
        self._writes = folder is None
        if folder is not None:
            self._notices.warn(
                f"LibraGradAudit cannot write pictures to {folder}; pass a `default_root_dir` that "
                "can be written, or a logger that takes pictures, to the Trainer."
            )

    def drawer(self, trainer: pl.Trainer, most: int | None = None) -> PanelDrawer:
        """Return what draws the first images of the probe set, if anything takes pictures."""
        count = self.count if most is None else min(self.count, most)
        if not (count and self._writes and trainer_sinks(trainer)):
            return PanelDrawer(self._pictures, 0)
        module = trainer.lightning_module
        scoring = [m for m in module.modules() if isinstance(m, ScoringModule)]
        named = scoring if len(scoring) == 1 else []
        owners = [trainer.datamodule, module, *named]  # type: ignore[attr-defined]
        return PanelDrawer(self._pictures.filled(owners), count)

    def write_coverage(self, trainer: pl.Trainer, reports: Sequence[CoverageReport]) -> None:
        """Write which rule every operation gets."""
        self._coverage = reports
        with self._writing():
            if self._writes:
                write_coverage(trainer, self.name, reports)

    def write_images(self, trainer: pl.Trainer, drawer: PanelDrawer, prefix: str) -> None:
        """Write the panels that were drawn; those of the first and the last audit are kept."""
        self._drawn["last" if "first" in self._drawn else "first"] = drawer.drawn
        with self._writing():
            write_images(trainer, drawer.named(prefix))

    def write_history(self, trainer: pl.Trainer) -> None:
        """Write the table of all audits."""
        with self._writing():
            if self._writes:
                write_history(trainer, self.name, self.history.records)

    def close(self, trainer: pl.Trainer, name: str, count: int) -> None:
        """Write the page of the last audits, and after a fit the table of all.

        Args:
            trainer: The Trainer.
            name: The name of its file.
            count: How many audits it is about.
        """
        self._runs.close()
        if trainer.state.fn == "fit":
            self.write_history(trainer)
        records = self.history.records[len(self.history.records) - count :]
        if not (records and self._writes):
            return
        page = AuditPage(
            self.name,
            self._config.rule_names,
            self._config.state(),
            records,
            self._drawn,
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
        self._say_what_is_missing(result, measured, task)
        if not tests:
            self._say_what_is_not_there(result)
        if fits:
            self._say_what_changed(result)
        record = AuditRecord(
            weights.epoch,
            logger_step(trainer),
            self.history.kept(measured) if fits else {k: v for k, v in measured.items() if v == v},
            result.seconds,
            result.samples,
            weights.label,
            result.perturbation,
            result.peak_memory_gib,
        )
        self.history.add(record, self.history.last if tests else result)
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

    def _say_what_is_missing(
        self, result: AuditResult, measured: Mapping[str, float], task: Task
    ) -> None:
        found = len(result.fingerprints)
        if result.nonfinite:
            self._notices.warn(
                f"LibraGradAudit leaves out {result.nonfinite} of {found} images, whose scores are "
                "not finite; the model may have diverged.",
                about="nonfinite",
            )
        blank = {name: n for name, n in result.uninformative.items() if n > result.nonfinite}
        if blank:
            counts = ", ".join(f"{n} of {found} under {name}" for name, n in blank.items())
            self._notices.warn(
                f"LibraGradAudit does not score maps that are the same everywhere ({counts}), "
                "since they rank no patch above another; `degenerate_rate` counts them. If all "
                "are, the scores may end in a function without a gradient: pass `forward`, a "
                "function `(module, images) -> scores`, that returns the scores before it.",
                about="blank",
            )
        error = measured.get("relative_completeness_error/libra", 0.0)
        if error > _LARGEST_ERROR:
            self._notices.warn(
                f"The attributions of LibraGrad do not add up to the scores (relative error "
                f"{error:.2g}), so something in the model is not accounted for; "
                "`diagnosis.explain_incompleteness` finds out where.",
                about="incomplete",
            )
        reasons = reasons_for_missing(self._config.metrics, measured, task)
        for reason in dict.fromkeys(reasons.values()):
            names = ", ".join(f"`{name}`" for name, why in reasons.items() if why == reason)
            say = self._notices.warn if self._config.asked else self._notices.info
            say(f"LibraGradAudit has no value for {names}, which {reason}.")

    def _say_what_changed(self, result: AuditResult) -> None:
        changed = self.history.changed(result.fingerprints)
        if changed:
            self._notices.warn(
                f"LibraGradAudit found other images than before in {len(changed)} of "
                f"{len(result.fingerprints)} places of the validation loader, so that its curves "
                "do not go on; pass a loader with `shuffle=False`.",
                about="changed",
            )

    def _say_what_is_not_there(self, result: AuditResult) -> None:
        request = self._config.request
        named, limit = request.probe, result.samples + result.nonfinite
        if isinstance(named, tuple) and limit < len(named):
            self._notices.warn(
                f"LibraGradAudit found {limit} of the {len(named)} images that `probe` names; name "
                "places in the validation loader, after `limit_val_batches`.",
                about="missing images",
            )


def costs(record: AuditRecord, limited: bool) -> dict[str, float]:
    """Return what an audit took: seconds, memory, and how many images, if that is limited."""
    found = {"seconds": record.seconds}
    if record.peak_memory_gib is not None:
        found["peak_memory_gib"] = record.peak_memory_gib
    if limited:
        found["samples"] = float(record.samples)
    return found
