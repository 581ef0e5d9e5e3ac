"""When a Trainer's run is audited: the hooks of the callback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from libragrad_lightning.callbacks.auditor import Auditor
from libragrad_lightning.callbacks.guard import attempt, settle
from libragrad_lightning.callbacks.history_table import write_history
from libragrad_lightning.callbacks.precision import half_dtype
from libragrad_lightning.callbacks.probe import Probe, shard_of
from libragrad_lightning.callbacks.requirements import check_start, check_trainer
from libragrad_lightning.callbacks.schedule import Schedule
from libragrad_lightning.callbacks.selection import Named, ProbeRequest
from libragrad_lightning.callbacks.summary import AuditRecord, print_summary
from libragrad_lightning.callbacks.tensorboard import announce_charts
from libragrad_lightning.callbacks.weights import fingerprint, training_is_over
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn


class ScheduledAudit(pl.Callback):
    """Lets an auditor work when it is due.

    Args:
        auditor: Runs and reports audits.
        schedule: When a fit is audited.
        request: Which images make up the probe set.
        print_summary: Whether to print a table of all audits at the end.
    """

    def __init__(
        self, auditor: Auditor, schedule: Schedule, request: ProbeRequest, print_summary: bool
    ) -> None:
        super().__init__()
        self.auditor, self.schedule, self.request = auditor, schedule, request
        self.print_summary = print_summary
        self._wanted: list[int] | None = None
        self._pending, self._weights = False, "current"
        self._last_step = 0
        self._before_validation: list[int] = []
        self._explained: list[int] = []
        self._told: set[str] = set()

    @property
    def history(self) -> list[AuditRecord]:
        """The audits so far."""
        return self.auditor.history

    @property
    def state_key(self) -> str:
        """One state for every name, so that several audits can share a Trainer."""
        return self._generate_state_key(name=self.auditor.name)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the audit can run, before anything else does."""
        check_trainer(trainer, stage, self.schedule)
        self.auditor.reset(forget=stage == "fit")
        self._wanted, self._told = None, set()
        self._last_step, self._explained = 0, []
        self._pending = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let TensorBoard put the rule sets side by side."""
        announce_charts(trainer, self.auditor.name, self.auditor.settings)

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Audit the weights at the start."""
        probe, index = self.auditor.probe, self.request.dataloader_idx
        whole = trainer.num_sanity_val_batches[index] == trainer.num_val_batches[index]
        if probe is not None and (probe.is_complete or whole):
            probe.fix()
        else:
            self.auditor.probe = None
        if self.schedule.at_start:
            check_start(self.auditor.probe is not None)
            self._audit_now(trainer, pl_module, "current")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch."""
        self.auditor.overhead.begin_epoch()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Audit after every n optimizer steps."""
        step, last = trainer.global_step, self._last_step
        if step == last or not self.schedule.at_step(step):
            return
        self._last_step = step
        if self.auditor.probe is None or not self.auditor.probe.is_fixed:
            rank_zero_warn(
                "LibraGradAudit with `every_n_train_steps` begins after the first validation, which"
                " shows the probe set; pass `Trainer(num_sanity_val_steps=-1)` to begin earlier."
            )
            return
        self._audit_now(trainer, pl_module, "current", monitored=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shrink the audit if it took too much of the epoch."""
        self.auditor.keep_within_budget()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Decide whether this validation is audited.

        Here the weights are still those that are trained: callbacks that average weights exchange
        them when the validation epoch starts.
        """
        fitting = trainer.state.fn == "fit"
        due = not fitting or self.schedule.at_validation(trainer.current_epoch)
        self._begin(trainer, pl_module, trainer.val_dataloaders, due)
        if self._pending and fitting:
            self._before_validation = fingerprint(pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Audit every test."""
        self._begin(trainer, pl_module, trainer.test_dataloaders, True)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the probe set, and audit as soon as it is complete.

        The audit runs here and not at the end of the epoch because callbacks that average weights
        swap them there: what is explained are the weights that are being validated.
        """
        if dataloader_idx == self.request.dataloader_idx:
            if trainer.sanity_checking and batch_idx == 0:
                self.auditor.look(trainer, pl_module, batch)
            batches = trainer.num_val_batches[dataloader_idx]
            self._see(trainer, pl_module, batch, batch_idx + 1 == batches)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the probe set of the test, and audit as soon as it is complete."""
        if dataloader_idx == self.request.dataloader_idx:
            batches = trainer.num_test_batches[dataloader_idx]
            self._see(trainer, pl_module, batch, batch_idx + 1 == batches)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the audit, here where checkpoints and early stopping can monitor it."""
        if not trainer.sanity_checking:
            self._finish(trainer, pl_module, self.auditor.name)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the audit of a test."""
        self._finish(trainer, pl_module, f"test_{self.auditor.name}")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Audit the weights at the end, and show the audits of the fit."""
        shown = self.auditor.probe is not None and self.auditor.probe.is_fixed
        if self.schedule.at_end and shown and fingerprint(pl_module) != self._explained:
            self._audit_now(trainer, pl_module, "final")
        self._show(trainer, self.history)
        written = attempt(lambda: write_history(trainer, self.auditor.name, self.history))
        settle(written.error, self.auditor.on_error)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the audit of a validation outside of a fit."""
        if trainer.state.fn == "validate":
            self._show(trainer, self.history[-1:])

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the audit of a test."""
        self._show(trainer, self.history[-1:])

    def state_dict(self) -> dict[str, Any]:
        """Return the history, the probe set's ids and the last maps."""
        return {"request": self.request.state(), "auditor": self.auditor.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history and the probe set of a checkpoint."""
        self.auditor.load_state_dict(state_dict["auditor"])
        ids = list(self.auditor.last.fingerprints)
        self._wanted = ids if state_dict["request"] == self.request.state() and ids else None

    def _begin(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loaders: Any, due: bool
    ) -> None:
        self._pending, self._weights = due and not trainer.sanity_checking, "current"
        self.auditor.discard()
        probe = self.auditor.probe
        needed = due or self.schedule.every_n_train_steps is not None
        if needed and (probe is None or not probe.is_fixed):
            loader = self._loader(loaders, trainer)
            if loader is None:
                self._pending = False
                return
            shard = shard_of(loader, trainer.global_rank, trainer.world_size)
            wanted = self._wanted
            chosen = self.request.selection() if wanted is None else Named(wanted)
            self.auditor.probe = Probe(chosen, shard)
        half = half_dtype(pl_module)
        if half is not None:
            copies = "float32 copies of " if self.auditor.settings.in_float32 else ""
            self._tell(f"{copies}{str(half).removeprefix('torch.')} weights")

    def _loader(self, loaders: Any, trainer: pl.Trainer) -> Any:
        """Return the loader of the probe set; None if a test has no such loader."""
        found, index = CombinedLoader(loaders, "sequential").flattened, self.request.dataloader_idx
        if index < len(found):
            return found[index]
        if trainer.state.fn == "test":
            return None
        raise MisconfigurationException(
            f"LibraGradAudit wants validation loader {index} of {len(found)}; pass a smaller "
            "`dataloader_idx` (they count from 0)."
        )

    def _see(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, is_last: bool
    ) -> None:
        probe = self.auditor.probe
        if probe is None:
            return
        if not probe.is_fixed:
            self.auditor.collect(batch, probe)
            if (probe.is_complete or is_last) and not trainer.sanity_checking:
                probe.fix()
        if self._pending and probe.is_fixed and not self.auditor.has_findings:
            self._audit(trainer, pl_module)

    def _audit(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._explained = fingerprint(pl_module)
            exchanged = self._explained != self._before_validation
            if exchanged or training_is_over(trainer):
                self._weights = "averaged"
                self._tell("weights that another callback averaged, not those that were trained")
        self.auditor.audit(trainer, pl_module)

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> None:
        self.auditor.report(
            trainer,
            name,
            lambda values: pl_module.log_dict(dict(values), sync_dist=trainer.world_size > 1),
            self._weights,
        )
        self._pending = False
        self._check_probe()

    def _finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> None:
        """Report; where a loader does not say which batch is its last, audit first."""
        if self.auditor.probe is not None:
            self.auditor.probe.fix()
        if self._pending and not self.auditor.has_findings:
            self._audit(trainer, pl_module)
        self._report(trainer, pl_module, name)

    def _audit_now(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        weights: str,
        monitored: bool = False,
    ) -> None:
        """Audit outside of a validation."""

        def write(values: Mapping[str, float]) -> None:
            if monitored:
                pl_module.log_dict(dict(values), on_step=True, on_epoch=False, logger=False)
            for logger in trainer.loggers:
                logger.log_metrics(dict(values), step=trainer.global_step)
                logger.save()

        if weights == "final":
            self._tell("the weights that the fit leaves behind")
        self._explained = fingerprint(pl_module)
        self.auditor.audit(trainer, pl_module)
        self.auditor.report(trainer, self.auditor.name, write, weights)

    def _check_probe(self) -> None:
        """Warn once of images that were asked for and are not there."""
        named, history = self.request.probe, self.history
        if isinstance(named, tuple) and history and self.auditor.overhead.max_samples is None:
            found = history[-1].samples
            if found < len(named) and "missing" not in self._told:
                self._told.add("missing")
                rank_zero_warn(
                    f"LibraGradAudit found {found} of the {len(named)} images that `probe` names; "
                    "name places in the validation loader, after `limit_val_batches`."
                )

    def _tell(self, what: str) -> None:
        """Say once in a fit what is explained."""
        if what not in self._told:
            self._told.add(what)
            rank_zero_info(f"LibraGradAudit explains {what}.")

    def _show(self, trainer: pl.Trainer, history: Sequence[AuditRecord]) -> None:
        if self.print_summary and trainer.is_global_zero:
            print_summary(history, [rules.name for rules in self.auditor.settings.rules])
