"""The audits of one Trainer's run: when they are due, what they find, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from libragrad_lightning.audit import (
    AuditConfig,
    AuditRecord,
    AuditResult,
    Named,
    ProbeGroup,
    merged,
    shard_of,
)
from libragrad_lightning.models import gathered
from libragrad_lightning.monitoring.collector import ProbeCollector
from libragrad_lightning.monitoring.failures import FailureGuard, OnError
from libragrad_lightning.monitoring.in_progress import AuditInProgress
from libragrad_lightning.monitoring.notices import Notices
from libragrad_lightning.monitoring.overhead import Overhead
from libragrad_lightning.monitoring.postponement import Postponement
from libragrad_lightning.monitoring.publishing import Publisher, costs
from libragrad_lightning.monitoring.remarks import resumes_something_else
from libragrad_lightning.monitoring.weights import ExplainedWeights, half_dtype
from libragrad_lightning.monitoring.whole_weights import WholeWeights
from libragrad_lightning.reporting import Pictures

Write: TypeAlias = Callable[[Mapping[str, float]], None]
"""Logs values under their keys."""
_Groups: TypeAlias = Sequence[ProbeGroup]


class AuditSession:
    """Runs audits and publishes them.

    Args:
        config: What is explained and measured.
        pictures: How probe images are drawn.
        num_images: How many are drawn.
        max_overhead: The largest fraction of an epoch's other time that audits may take, or None.
        on_error: What to do about failures.
        name: First part of the names of what is written.

    Attributes:
        config: What is explained and measured.
        overhead: The time that audits take.
        postponement: Puts off those for which there is none.
    """

    def __init__(
        self,
        config: AuditConfig,
        pictures: Pictures,
        num_images: int,
        max_overhead: float | None,
        on_error: OnError,
        name: str,
    ) -> None:
        self.name, self.overhead = name, Overhead(max_overhead)
        self.config, self._notices, self._guard = config, Notices(), FailureGuard(on_error)
        self.postponement = Postponement(name, self.overhead, self._notices)
        self._whole = WholeWeights(self._guard)
        self._collector = ProbeCollector(config, self._notices)
        self._publisher = Publisher(config, pictures, num_images, self._notices, name)
        self._history = self._publisher.history
        audited = config, self._collector, self._publisher, self.overhead
        self._audits, self._weights = AuditInProgress(*audited), ExplainedWeights()
        self._resumed: list[int] | None = None
        self._is_due = False

    @property
    def records(self) -> list[AuditRecord]:
        """The audits so far."""
        return self._history.records

    @property
    def has_probe(self) -> bool:
        """Whether the probe set is there."""
        return self._collector.is_fixed

    def start(self, trainer: pl.Trainer, fits: bool) -> None:
        """Begin with a Trainer's run; a fit that goes on with an earlier one keeps its history."""
        self._guard.begin(trainer.world_size, trainer.global_rank)
        self._collector.reset()
        self._notices.forget()
        self._drop()
        self._is_due, self._resumed = False, None
        self._audits.begin_anew()
        self._weights.forget()
        if fits and trainer.global_step == 0:
            self._publisher.begin_anew()
            self.overhead.allow(None)
        self._publisher.start(trainer)

    def begin_with(self, epoch: int | None) -> None:
        """Begin with weights of a checkpoint that was written in an epoch."""
        self._weights.load(epoch)

    def begin(self, trainer: pl.Trainer, loader: Any, is_due: bool, needs_probe: bool) -> None:
        """Begin with a validation or test; the loader is that of the probe set, or None."""
        self._drop()
        self._is_due = is_due and loader is not None
        if loader is not None and (is_due or needs_probe):
            request, ids = self.config.request, self._resumed
            shard = shard_of(loader, trainer.global_rank, trainer.world_size)
            chosen = request.selection() if ids is None else Named(ids)
            self._collector.expect(chosen, shard)
        if (half := half_dtype(trainer.lightning_module)) is not None:
            copies = "float32 copies of " if self.config.in_float32 else ""
            self._say(f"{copies}{str(half).removeprefix('torch.')} weights")
        if self._is_due:
            self._weights.begin(trainer)

    def watch(self, trainer: pl.Trainer, step: str, batch: Any, batch_idx: int) -> None:
        """Watch the step of a batch, if it is needed."""
        if not self._guard.has_failed:
            is_first = self._is_first(trainer, batch_idx)
            self._collector.watch(trainer.lightning_module, step, batch, is_first)

    def leave(self) -> None:
        """Watch no step."""
        self._collector.leave()

    def see(self, trainer: pl.Trainer, batch_idx: int, is_last: bool) -> None:
        """Learn from the step that was watched; audit as soon as the probe set is complete.

        The audit runs here and not at the end of the epoch because callbacks that average weights
        swap them there: what is explained are the weights that are being validated.
        """
        collector, is_first = self._collector, self._is_first(trainer, batch_idx)
        with self._whole.there(trainer, collector.is_watching) as is_mine:
            if is_mine:
                collector.learn(trainer.lightning_module, is_first, self.overhead.has_room)
        if is_first and not self._guard.alone:
            collector.agree_on_task()
        self._guard.attempt(collector.keep)
        if trainer.sanity_checking:
            with self._whole.there(trainer, is_first) as is_mine:
                if is_mine:
                    self._audits.explain_one(trainer)
            return
        if not self._guard.has_failed and (collector.is_complete or is_last):
            collector.fix()
        if self._comes_and_goes(trainer):
            self._audit_next(trainer, is_wanted=False)
        else:
            is_ready = collector.is_fixed and self._audits.run is None
            self._audit(trainer, self._is_due and is_ready)

    def look_back(self, saw_all: bool) -> None:
        """Settle what the sanity check showed, and keep the probe set if it was long enough."""
        self._guard.agree()
        if saw_all or self._collector.is_complete:
            self._collector.fix()
        else:
            self._collector.forget_probe()

    def finish(self, trainer: pl.Trainer, prefix: str, write: Write) -> None:
        """Agree with the other processes on what was found, and publish it under a prefix."""
        if not self._is_due:
            return
        self._collector.fix()
        # Loaders may not say which batch is their last.
        audit = self._audit_next if self._comes_and_goes(trainer) else self._audit
        audit(trainer, self._audits.run is None)
        self._is_due = False
        if not self._guard.agree():
            self._collector.forget_probe()  # It may lack the images of a batch that failed.
        elif self._audits.run is not None:
            self._publish(trainer, prefix, write)
        self._drop()

    def audit_now(self, trainer: pl.Trainer, weights: str, write: Write) -> None:
        """Audit outside of a validation."""
        self._drop()
        self._weights.begin(trainer, weights)
        if weights == "final":
            if not self.has_probe or all(gathered(self._weights.are_explained)):
                return
            self._say("the weights that the fit leaves behind")
        self._audit(trainer, is_wanted=self.postponement.has_time(trainer))
        if self._guard.agree() and self._audits.run is not None:
            self._publish(trainer, self.name, write)
        self._drop()

    def close(self, trainer: pl.Trainer, prefix: str, count: int) -> None:
        """Write down what the last audits of a run have found."""
        self._guard.attempt(self._publisher.close, trainer, prefix, count)
        self._guard.agree()

    def keep_within_budget(self) -> None:
        """Explain fewer images from now on if there is no time for as many."""
        if self.overhead.is_limited and self.records:
            sizes = self._publisher.count, self._collector.size, self.records[-1].samples
            if said := self.overhead.keep_within(*sizes):
                rank_zero_warn(said)

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into a checkpoint: plain values and tensors."""
        return {
            "settings": self.config.state(),
            **self._publisher.state_dict(),
            "max_samples": self.overhead.max_samples,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, unless it is one of an audit of something else."""
        if resumes_something_else(state["settings"], self.config.state()):
            return
        self._publisher.load_state_dict(state)
        self.overhead.allow(state["max_samples"])
        self._resumed = self._history.probe_ids() or None

    def _comes_and_goes(self, trainer: pl.Trainer) -> bool:
        """Whether images are explained as they come: outside of a fit, which has one audit."""
        outside = self._is_due and trainer.state.fn != "fit"
        return outside and self._collector.comes_in_order

    def _is_first(self, trainer: pl.Trainer, batch_idx: int) -> bool:
        """Whether a batch is the first of those that there is something to learn from."""
        learns = self._is_due or trainer.sanity_checking or self._collector.is_collecting
        return batch_idx == 0 and learns

    def _audit(self, trainer: pl.Trainer, is_wanted: bool) -> None:
        """Do this process's part of an audit, if it is wanted."""
        self._name_weights(trainer, is_wanted)
        with self._whole.there(trainer, is_wanted) as is_mine:
            if is_mine:
                self._audits.explain(trainer)

    def _audit_next(self, trainer: pl.Trainer, is_wanted: bool) -> None:
        """Do what there is to do of an audit of images that come and go."""
        count = 1 if self._collector.is_fixed else self._audits.at_once
        is_wanted = is_wanted or self._collector.has(count)
        self._name_weights(trainer, is_wanted and self._audits.run is None)
        with self._whole.there(trainer, is_wanted) as is_mine:
            if is_mine:
                self._audits.explain_next(trainer, count)

    def _name_weights(self, trainer: pl.Trainer, is_wanted: bool) -> None:
        """Say which weights are explained, where an audit begins."""
        wanted = is_wanted and not self._guard.has_failed
        if wanted and self._weights.explain(trainer) == "averaged":
            self._say("weights that another callback averaged, not those that were trained")

    def _publish(self, trainer: pl.Trainer, prefix: str, write: Write) -> None:
        run, drawer, overhead = self._audits.run, self._audits.drawer, self.overhead
        assert run is not None
        assert drawer is not None
        begin = overhead.seconds
        self._guard.attempt(self._publisher.write_images, trainer, drawer, prefix)
        overhead.settle(run.budget, len(drawer.panels()), overhead.seconds - begin)
        result = AuditResult()
        with self._guard.work():
            result = merged(gathered(self._audits.result))
        task = self._collector.task
        found = result.scores, run.measurement.statistics, task
        self._guard.attempt(self._publisher.write_findings, trainer, drawer, prefix, *found)
        with self._guard.work():
            result = replace(result, seconds=max(gathered(overhead.seconds)))
            measured = run.measurement.values()
            if result.fingerprints:
                record = self._publisher.record(trainer, result, measured, task, self._weights)
                values = {**record.values, **costs(record, overhead.is_limited)}
                write({f"{prefix}/{key}": value for key, value in values.items()})
            else:
                self._publisher.say_that_nothing_was_seen()
        self._guard.agree()

    def _drop(self) -> None:
        """Forget what has been found and not been published, and what it took."""
        self._guard.forget()
        self.overhead.begin_audit()
        self._audits.drop()

    def _say(self, what: str) -> None:
        """Say once in a fit what is explained."""
        self._notices.info(f"LibraGradAudit explains {what}.")
