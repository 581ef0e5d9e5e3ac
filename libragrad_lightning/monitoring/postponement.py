"""Puts audits off until there is time for one."""

from __future__ import annotations

from dataclasses import dataclass

import lightning.pytorch as pl

from libragrad_lightning.models import gathered
from libragrad_lightning.monitoring.notices import Notices
from libragrad_lightning.monitoring.overhead import Overhead


@dataclass(frozen=True)
class Postponement:
    """Decides whether an audit that is due takes place.

    Attributes:
        name: First part of the names of the values of audits.
        overhead: The time that audits take.
        notices: Where to say that one is put off.
    """

    name: str
    overhead: Overhead
    notices: Notices

    def has_time(self, trainer: pl.Trainer) -> bool:
        """Whether there is time for an audit of one image, or its values cannot be missed.

        Every process has to call it. If there is none, what is left of the epoch's time is saved.
        """
        lacks = self.overhead.lacks()
        if not self.overhead.is_limited or not any(gathered(lacks is not None)):
            return True
        if self._are_missed(trainer):
            return True
        self.overhead.postpone()
        if lacks is not None:
            self.notices.warn(
                f"LibraGradAudit postpones audits until there is time for one: an image takes "
                f"{lacks.needed:.2g} s, and there are {lacks.left:.2g} s; pass a larger "
                f"`max_overhead` than {self.overhead.largest_fraction} to audit more often.",
                about="postponed",
            )
        return False

    def _are_missed(self, trainer: pl.Trainer) -> bool:
        """Whether a callback or a scheduler waits for values of which there are none so far.

        `ModelCheckpoint` and others end a run whose value is not there.
        """
        prefix = f"{self.name}/"
        if any(key.startswith(prefix) for key in trainer.callback_metrics):
            return False
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        words = [word for callback in callbacks for word in vars(callback).values()]
        words += [config.monitor for config in trainer.lr_scheduler_configs]
        return any(isinstance(word, str) and word.startswith(prefix) for word in words)
