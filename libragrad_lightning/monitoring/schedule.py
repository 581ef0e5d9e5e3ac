"""When audits run, and how much of the time they may take."""

from __future__ import annotations

from dataclasses import dataclass

from libragrad_lightning.audit import AuditError, at_least


@dataclass(frozen=True)
class Schedule:
    """When a fit is audited.

    Args:
        every_n_epochs: Audit at the validations of epochs 0, n, 2n, ...; validate and test always
            audit. Monitors see the latest values in between.
        every_n_train_steps: If given, a fit is audited after every n optimizer steps in place of
            its validations, as soon as the first validation (or the sanity check) has shown the
            probe set.
        at_start: Audit before the first optimizer step too, in the sanity check, which has to be
            long enough to show the probe set (`Trainer(num_sanity_val_steps=-1)`). Written to the
            loggers only.
        at_end: Audit the weights that the fit leaves behind, unless they are those of the last
            audit. Written to the loggers only.
        max_overhead: Largest share of an epoch's other time that all work for audits may take, such
            as 0.05, with watching, drawing and writing. As many images are explained, and drawn, as
            there is time for. Where there is none for a single image, an audit is postponed until
            what epochs leave adds up to it, unless a callback waits for a first value of it. That
            later batches of the first validation agree with what was learned from its first one
            is checked while there is time. No limit by default.
    """

    every_n_epochs: int = 1
    every_n_train_steps: int | None = None
    at_start: bool = False
    at_end: bool = False
    max_overhead: float | None = None

    def check(self) -> None:
        """Check the numbers.

        Raises:
            AuditError: If one is out of range.
        """
        at_least(1, self.every_n_epochs, "every_n_epochs")
        at_least(
            1,
            1 if self.every_n_train_steps is None else self.every_n_train_steps,
            "every_n_train_steps",
        )
        if self.max_overhead is not None and not self.max_overhead > 0:
            raise AuditError(
                f"LibraGradAudit needs `max_overhead` above 0, or None, but got "
                f"{self.max_overhead}."
            )

    def at_validation(self, epoch: int) -> bool:
        """Return whether the validations of an epoch are audited."""
        return self.every_n_train_steps is None and epoch % self.every_n_epochs == 0

    def at_step(self, step: int) -> bool:
        """Return whether to audit when so many optimizer steps have been taken."""
        return self.every_n_train_steps is not None and step % self.every_n_train_steps == 0
