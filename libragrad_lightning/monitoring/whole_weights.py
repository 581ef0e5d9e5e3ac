"""Lets audits have all weights of a model, also where processes share them."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as pl

from libragrad_lightning.models import gathered, gathered_weights, is_sharded
from libragrad_lightning.monitoring.failures import FailureGuard
from libragrad_lightning.monitoring.weights import outermost


class WholeWeights:
    """Does the work of audits that needs all weights.

    Where weights are spread over processes, they are gathered by all as soon as one of them has
    something to do: no process waits for another that has no images, or failed before.

    Args:
        guard: Settles what goes wrong.
    """

    def __init__(self, guard: FailureGuard) -> None:
        self._guard = guard

    def attempt(self, trainer: pl.Trainer, work: Callable[[], object], is_wanted: bool) -> None:
        """Do a piece of work if it is wanted, unless something went wrong before.

        Where weights are spread over processes, every process has to call it.
        """
        model = outermost(trainer)
        wanted = is_wanted and not self._guard.has_failed
        if not is_sharded(model):
            if wanted:
                with self._guard.work():
                    work()
        elif any(gathered(wanted)):
            with self._guard.work(), gathered_weights(model):
                if wanted:
                    work()
