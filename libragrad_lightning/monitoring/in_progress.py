"""An audit in progress: it explains the images of a Trainer's run, and keeps what it finds."""

from __future__ import annotations

import math

import lightning.pytorch as pl

from libragrad_lightning.audit import (
    MOST_AT_ONCE,
    MOST_SCORED,
    AuditConfig,
    AuditResult,
    AuditRun,
    Readings,
)
from libragrad_lightning.diagnosis import CoverageReport
from libragrad_lightning.monitoring.collector import ProbeCollector, audited_state
from libragrad_lightning.monitoring.overhead import Overhead
from libragrad_lightning.monitoring.progress import AuditProgress, audit_progress
from libragrad_lightning.monitoring.publishing import Publisher
from libragrad_lightning.monitoring.watcher import RunWatcher
from libragrad_lightning.reporting import PanelDrawer

REMEMBERED = 1024
"""Of how many maps in all processes fingerprint and map are kept where images come and go."""


class _Unseen:
    """Shows nothing."""

    def update(self, count: int) -> None:
        """Go on by a number of images."""


class AuditInProgress:
    """Explains images of a Trainer's run, all at once or as they come.

    Args:
        config: What is explained and measured.
        collector: Has the images.
        publisher: Makes pictures, and knows the audit before.
        overhead: The time that audits take.

    Attributes:
        run: The audit, None before it begins.
        drawer: What has drawn its pictures, None before it begins.
    """

    def __init__(
        self,
        config: AuditConfig,
        collector: ProbeCollector,
        publisher: Publisher,
        overhead: Overhead,
    ) -> None:
        self._config, self._collector = config, collector
        self._publisher, self._overhead = publisher, overhead
        self._readings = Readings()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Begin with another Trainer's run."""
        self._covered, self._batch_size = False, self._config.batch_size
        self.drop()

    def drop(self) -> None:
        """Forget what has been found."""
        self.run: AuditRun | None = None
        self.drawer: PanelDrawer | None = None

    @property
    def result(self) -> AuditResult:
        """What has been found."""
        return AuditResult() if self.run is None else self.run.found()

    @property
    def at_once(self) -> int:
        """How many images are explained at once, as far as that is known."""
        return self._batch_size or MOST_AT_ONCE

    def explain_one(self, trainer: pl.Trainer) -> None:
        """Explain one image, so that what cannot work shows before training."""
        groups = [group.first() for group in self._collector.groups()[:1]]
        shown = audit_progress(trainer, self._publisher.name, len(groups))
        with shown as bar, audited_state(trainer.lightning_module, self._config.in_float32):
            drawer = self._publisher.drawer(trainer, 0)
            run = self._begun(trainer, drawer, bar, AuditResult())
            run.add(groups)
        self._overhead.expect(run.budget.seconds)

    def explain(self, trainer: pl.Trainer) -> None:
        """Explain all images of this process that there is time for."""
        groups = self._collector.groups(self._overhead.max_samples)
        self.drawer = self._publisher.drawer(trainer, self._overhead.pictures())
        count = sum(len(group.ids) for group in groups)
        shown = audit_progress(trainer, self._publisher.name, count)
        with shown as bar, audited_state(trainer.lightning_module, self._config.in_float32):
            run = self._begun(trainer, self.drawer, bar, self._publisher.previous(trainer))
            run.budget = self._overhead.budget(self.drawer.count)
            run.add(groups)
        self.run, self._batch_size = run, run.batch_size

    def explain_next(self, trainer: pl.Trainer, count: int) -> None:
        """Explain the images that have come, a multiple of so many, and forget them.

        Lightning's own bar shows how many are still to come.
        """
        groups = self._collector.taken(count)
        with audited_state(trainer.lightning_module, self._config.in_float32):
            if self.run is None or self.drawer is None:
                self.drawer = self._publisher.drawer(trainer)
                previous = self._publisher.previous(trainer)
                remembered = _share(REMEMBERED, trainer)
                self.run = self._begun(trainer, self.drawer, _Unseen(), previous, remembered)
            self.run.add(groups)
        self._batch_size = self.run.batch_size

    def _begun(
        self,
        trainer: pl.Trainer,
        drawer: PanelDrawer,
        bar: AuditProgress,
        previous: AuditResult,
        remembered: float = math.inf,
    ) -> AuditRun:
        """Begin with an audit, in `audited_state`: its metrics are no tensors of inference mode."""

        def cover(reports: list[CoverageReport]) -> None:
            self._covered = True
            self._publisher.write_coverage(trainer, reports)

        module, config, collector = trainer.lightning_module, self._config, self._collector
        watcher = RunWatcher(module, config, drawer, bar, None if self._covered else cover)
        kept = self._batch_size, collector.added_up, self._readings
        learned = collector.learned
        scored = _share(MOST_SCORED, trainer)
        given = module, learned, config, previous, watcher, *kept
        return AuditRun(*given, remembered=remembered, scored=scored)


def _share(count: int, trainer: pl.Trainer) -> int:
    """Return one process's share, so that what all of them have does not grow with their number."""
    return math.ceil(count / trainer.world_size)
