"""The hooks of a Trainer in which audits run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_warn

from libragrad_lightning.audit import AuditRecord
from libragrad_lightning.monitoring.requirements import (
    check_fit,
    check_start,
    check_trainer,
    probe_loader,
)
from libragrad_lightning.monitoring.schedule import Schedule
from libragrad_lightning.monitoring.session import AuditSession
from libragrad_lightning.reporting import announce_charts, logger_step, print_heading, print_summary

P = ParamSpec("P")


def _counted(
    hook: Callable[Concatenate[AuditHooks, P], None],
) -> Callable[Concatenate[AuditHooks, P], None]:
    """Let the time of a hook count as that of audits."""

    @wraps(hook)
    def counted(self: AuditHooks, /, *args: P.args, **kwargs: P.kwargs) -> None:
        with self._overhead.counting():
            hook(self, *args, **kwargs)

    return counted


class AuditHooks(pl.Callback):
    """Lets a session audit when it is due.

    Args:
        session: Runs and publishes audits.
        schedule: When a fit is audited.
        dataloader_idx: Which validation loader the probe set comes from.
        print_summary: Whether to print a table of all audits at the end.
    """

    def __init__(
        self, session: AuditSession, schedule: Schedule, dataloader_idx: int, print_summary: bool
    ) -> None:
        super().__init__()
        self._session, self._schedule, self._index = session, schedule, dataloader_idx
        self._overhead, self._postponement = session.overhead, session.postponement
        self._prints, self._last_step = print_summary, 0

    @property
    def history(self) -> list[AuditRecord]:
        """The audits so far."""
        return self._session.records

    @property
    def keys(self) -> list[str]:
        """The keys under which metrics of a validation are logged."""
        session = self._session
        metrics, rule_sets = session.config.logged_names, session.config.rule_names
        names = [f"{metric}/{rules}" for metric in metrics for rules in rule_sets]
        return [f"{session.name}/{name}" for name in (*names, "accuracy", "seconds")]

    @property
    def state_key(self) -> str:
        """One state for every name, so that several audits can share a Trainer."""
        return self._generate_state_key(name=self._session.name)

    def state_dict(self) -> dict[str, Any]:
        """Return the history, the settings, and the last maps."""
        return self._session.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history and the probe set of a checkpoint."""
        self._session.load_state_dict(state_dict)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Learn of which epoch the weights are."""
        self._session.begin_with(checkpoint.get("epoch"))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the audit can run, before anything else does."""
        check_trainer(trainer, stage)
        self._session.start(trainer, stage == "fit")
        self._last_step = trainer.global_step

    def on_after_setup(self, *_: Any, **__: Any) -> None:
        """Refuse to be a callback of Fabric, which has no validation to watch.

        Raises:
            MisconfigurationException: Always.
        """
        raise MisconfigurationException(
            "LibraGradAudit is a callback of a Trainer, and Fabric has no validation loop that it "
            "could watch; call `libragrad_lightning.explain` on what `fabric.setup` returns."
        )

    def teardown(self, *_: Any, **__: Any) -> None:
        """Leave nothing on the module."""
        self._session.leave()

    def on_exception(self, trainer: pl.Trainer, _: Any, exception: BaseException) -> None:
        """Leave nothing on the module, and show the audits of a fit that its user has ended."""
        self._session.leave()
        is_ended = isinstance(exception, KeyboardInterrupt) and trainer.state.fn == "fit"
        # Other processes may not have been interrupted, and would be waited for.
        if is_ended and trainer.world_size == 1 and self.history:
            self._show(trainer, self._session.name, len(self.history))

    def on_fit_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Check the schedule, and let TensorBoard put the rule sets side by side."""
        check_fit(trainer, self._schedule)
        session = self._session
        config = session.config
        announce_charts(trainer, session.name, config.logged_names, config.rule_names)

    @_counted
    def on_sanity_check_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Audit the weights at the start."""
        seen, there = trainer.num_sanity_val_batches, trainer.num_val_batches
        self._session.look_back(seen[self._index] == there[self._index])
        if self._schedule.at_start:
            check_start(self._session.has_probe)
            self._audit_now(trainer, "initial")

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock of the epoch."""
        self._overhead.begin_epoch()

    @_counted
    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Audit after every n optimizer steps."""
        step, last = trainer.global_step, self._last_step
        if step == last or not self._schedule.at_step(step):
            return
        self._last_step = step
        if self._session.has_probe:
            self._audit_now(trainer, "current", monitored=True)
        else:
            rank_zero_warn(
                "LibraGradAudit with `every_n_train_steps` begins after the first validation, which"
                " shows the probe set; pass `Trainer(num_sanity_val_steps=-1)` to begin earlier."
            )

    @_counted
    def on_train_epoch_end(self, *_: Any) -> None:
        """Explain fewer images if there was no time for all of them."""
        self._session.keep_within_budget()
        self._overhead.end_epoch()

    @_counted
    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Decide whether this validation is audited."""
        is_due = trainer.state.fn != "fit" or self._schedule.at_validation(trainer.current_epoch)
        is_due = is_due and self._postponement.has_time(trainer)
        needs_probe = is_due or self._schedule.every_n_train_steps is not None
        loader = probe_loader(trainer, trainer.val_dataloaders, self._index)
        self._session.begin(trainer, loader, is_due, needs_probe)

    @_counted
    def on_test_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Audit every test."""
        loader = probe_loader(trainer, trainer.test_dataloaders, self._index)
        self._session.begin(trainer, loader, is_due=True, needs_probe=True)

    @_counted
    def on_validation_batch_start(
        self, trainer: pl.Trainer, _: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Watch what the validation step computes."""
        if dataloader_idx == self._index:
            self._session.watch(trainer, "validation_step", batch, batch_idx)

    @_counted
    def on_test_batch_start(
        self, trainer: pl.Trainer, _: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Watch what the test step computes."""
        if dataloader_idx == self._index:
            self._session.watch(trainer, "test_step", batch, batch_idx)

    @_counted
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        _: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the probe set, and audit as soon as it is complete."""
        if dataloader_idx == self._index:
            batches = trainer.num_val_batches[dataloader_idx]
            self._session.see(trainer, batch_idx, batch_idx + 1 == batches)

    @_counted
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        _: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the probe set of the test, and audit as soon as it is complete."""
        if dataloader_idx == self._index:
            batches = trainer.num_test_batches[dataloader_idx]
            self._session.see(trainer, batch_idx, batch_idx + 1 == batches)

    @_counted
    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the audit, here where checkpoints and early stopping can monitor it."""
        if not trainer.sanity_checking:
            self._finish(trainer, module, self._session.name)

    @_counted
    def on_test_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the audit of a test."""
        self._finish(trainer, module, f"test_{self._session.name}")

    @_counted
    def on_fit_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Audit the weights at the end, and show the audits of the fit."""
        if self._schedule.at_end:
            self._audit_now(trainer, "final")
        self._show(trainer, self._session.name, len(self.history))

    @_counted
    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Show the audit of a validation outside of a fit."""
        if trainer.state.fn == "validate":
            self._show(trainer, self._session.name, 1)

    @_counted
    def on_test_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Show the audit of a test."""
        self._show(trainer, f"test_{self._session.name}", 1)

    def _finish(self, trainer: pl.Trainer, module: pl.LightningModule, prefix: str) -> None:
        def write(values: Mapping[str, float]) -> None:
            module.log_dict(dict(values), sync_dist=trainer.world_size > 1)

        self._session.finish(trainer, prefix, write)

    def _audit_now(self, trainer: pl.Trainer, weights: str, monitored: bool = False) -> None:
        """Audit outside of a validation."""

        def write(values: Mapping[str, float]) -> None:
            if monitored:
                trainer.lightning_module.log_dict(
                    dict(values), on_step=True, on_epoch=False, logger=False
                )
            for logger in trainer.loggers:
                logger.log_metrics(dict(values), step=logger_step(trainer))
                logger.save()

        self._session.audit_now(trainer, weights, write)

    def _show(self, trainer: pl.Trainer, prefix: str, count: int) -> None:
        """Print the last audits, and write them down."""
        config, records = self._session.config, self.history[-count:] if count else []
        if self._prints and trainer.is_global_zero:
            if _prints_results(trainer):
                print_heading(records)
            else:
                print_summary(records, config.rule_names)
        self._session.close(trainer, prefix, count)


def _prints_results(trainer: pl.Trainer) -> bool:
    """Return whether Lightning prints what is logged, audits included."""
    loops = {"validate": trainer.validate_loop, "test": trainer.test_loop}
    return trainer.state.fn in loops and loops[trainer.state.fn].verbose
