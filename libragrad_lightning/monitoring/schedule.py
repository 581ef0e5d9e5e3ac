"""When audits run, and how much of the time they may take."""

from __future__ import annotations

import math
import time
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
        max_overhead: Largest share of an epoch's other time that its audits may take, such as 0.05;
            after an epoch in which they took more, fewer images are explained. No limit by default.
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


class Overhead:
    """Watches what fraction of an epoch's time audits take, and how many images they may have.

    Args:
        largest_fraction: Of the time that the epoch takes without audits; None for no limit.
    """

    def __init__(self, largest_fraction: float | None) -> None:
        self.largest_fraction = largest_fraction
        self.max_samples: int | None = None
        self._start: float | None = None
        self._audits = 0.0

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return self.largest_fraction is not None

    def begin_epoch(self) -> None:
        """Start the clock."""
        self._start, self._audits = time.monotonic(), 0.0

    def allow(self, max_samples: int | None) -> None:
        """Allow so many images; None for all of them."""
        self.max_samples = max_samples

    def add(self, seconds: float) -> None:
        """Count an audit."""
        self._audits += seconds

    def fraction(self) -> float:
        """Return audit time over the other time of the epoch so far; 0 if it has not begun."""
        if self._start is None or not self._audits:
            return 0.0
        return self._audits / max(1e-9, time.monotonic() - self._start - self._audits)

    def keep_within(self, fraction: float, samples: int) -> str:
        """Allow fewer images if audits took too large a fraction; return what to say of it.

        Args:
            fraction: The largest fraction of all processes.
            samples: How many images the last audit had, over all processes.
        """
        limit = self.largest_fraction
        if limit is None or fraction <= limit or samples <= 1:
            return ""
        self.max_samples = max(1, math.floor(samples * limit / fraction))
        return (
            f"LibraGradAudit took {fraction:.0%} of the time of the epoch and explains "
            f"{self.max_samples} images in place of {samples} from now on; pass a larger "
            f"`max_overhead` than {limit} to keep them."
        )
