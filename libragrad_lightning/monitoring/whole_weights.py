"""Lets audits have all weights of a model, also where processes share them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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

    @contextmanager
    def there(self, trainer: pl.Trainer, is_wanted: bool) -> Iterator[bool]:
        """Tell whether to do a piece of work: if it is wanted, and nothing went wrong before.

        Where weights are spread over processes, every process has to enter it.
        """
        model = outermost(trainer)
        wanted = is_wanted and not self._guard.has_failed
        if not (any(gathered(wanted)) if is_sharded(model) else wanted):
            yield False
            return
        with self._guard.work(), gathered_weights(model):
            yield wanted
