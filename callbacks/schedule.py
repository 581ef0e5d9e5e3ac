"""When audits run, and how much of the time they may take."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """When a fit is audited.

    Attributes:
        every_n_epochs: At the validations of epochs 0, n, 2n, ..., unless steps are given.
        every_n_train_steps: After every n optimizer steps, or None.
        at_start: Before the first optimizer step.
        at_end: With the weights that the fit leaves behind.
    """

    every_n_epochs: int
    every_n_train_steps: int | None
    at_start: bool
    at_end: bool

    def at_validation(self, epoch: int) -> bool:
        """Return whether the validations of an epoch are audited."""
        return self.every_n_train_steps is None and epoch % self.every_n_epochs == 0

    def at_step(self, step: int) -> bool:
        """Return whether to audit when so many optimizer steps have been taken."""
        return self.every_n_train_steps is not None and step % self.every_n_train_steps == 0


class Overhead:
    """Watches what share of an epoch's time audits take, and how many images they may have.

    Args:
        largest_share: Of the time that the epoch takes without audits; None for no limit.
    """

    def __init__(self, largest_share: float | None) -> None:
        self.largest_share = largest_share
        self.max_samples: int | None = None
        self._start: float | None = None
        self._audits = 0.0

    def begin_epoch(self) -> None:
        """Start the clock."""
        self._start, self._audits = time.monotonic(), 0.0

    def add(self, seconds: float) -> None:
        """Count an audit."""
        self._audits += seconds

    def share(self) -> float:
        """Return audit time over the other time of the epoch so far; 0 if it has not begun."""
        if self._start is None or not self._audits:
            return 0.0
        return self._audits / max(1e-9, time.monotonic() - self._start - self._audits)

    def shrink(self, share: float, samples: int) -> bool:
        """Allow fewer images if audits took too large a share; return whether it did.

        Args:
            share: The largest share of all processes.
            samples: How many images the last audit had, over all processes.
        """
        if self.largest_share is None or share <= self.largest_share or samples <= 1:
            return False
        self.max_samples = max(1, math.floor(samples * self.largest_share / share))
        return True
