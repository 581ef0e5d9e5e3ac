"""Keeps failures of an audit from doing more harm than they must."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.checkpoint import CheckpointError

from libragrad_lightning.audit import Failure
from libragrad_lightning.backward import LibraGradError
from libragrad_lightning.models import WeightsTooLargeError, gathered, is_out_of_memory

OnError: TypeAlias = Literal["raise", "warn"]

_OF_WEIGHTS = WeightsTooLargeError.__name__


class FailureGuard:
    """Runs the work of an audit, and settles what goes wrong in it.

    In one process a failure is settled at once. Of several processes, none may leave the others
    behind, so they wait for a place where all of them can agree.

    Args:
        on_error: Whether a failure ends the run or is warned of. Running out of memory never ends
            one.
    """

    def __init__(self, on_error: OnError) -> None:
        self._on_error: OnError = on_error
        self._error: Exception | None = None
        self.alone = True
        self.rank = 0

    @property
    def has_failed(self) -> bool:
        """Whether something went wrong that has not been settled."""
        return self._error is not None

    def begin(self, world_size: int, rank: int) -> None:
        """Begin with a run in so many processes, of which this is one."""
        self.alone, self.rank = world_size == 1, rank
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._error = None

    @contextmanager
    def work(self) -> Iterator[None]:
        """Do a piece of work; the random streams of the CPU are as before, whatever comes of it.

        In several processes nothing is raised here.
        """
        failed = False
        with isolate_rng(include_cuda=False):
            try:
                yield
            except Exception as error:
                self._error, failed = _as_users_see_it(error), True
        if self.alone and failed:
            self.settle_own()

    def attempt(self, work: Callable[..., None], *args: Any) -> None:
        """Do a piece of work, unless something went wrong before."""
        if not self.has_failed:
            with self.work():
                work(*args)

    def settle_own(self) -> None:
        """Raise the failure of this process, or warn of it.

        Raises:
            Exception: The failure.
        """
        error = self._error
        if error is None:
            return
        if self._on_error == "raise" and not is_out_of_memory(error):
            self._error = None
            raise error
        _warn(f"{type(error).__name__}: {error}", is_out_of_memory(error))

    def agree(self) -> bool:
        """Let all processes know of each other's failures; return whether there are none.

        Every process has to call it.

        Raises:
            Exception: If there are, and they are to end the run.
        """
        if self.alone:
            failed, self._error = self.has_failed, None
            return not failed
        found = [failure for failure in gathered(self._own()) if failure is not None]
        error, self._error = self._error, None
        if not found:
            return True
        memory = all(failure.out_of_memory for failure in found)
        if self._on_error == "raise" and not memory:
            raise error or _of_others(found)
        _warn(_told(found), memory)
        return False

    def _own(self) -> Failure | None:
        error = self._error
        if error is None:
            return None
        message = f"{type(error).__name__}: {error}"
        return Failure(self.rank, message, is_out_of_memory(error))


def _as_users_see_it(error: Exception) -> Exception:
    """Return an error as one of Lightning's own kind, if it says what to change."""
    if isinstance(error, CheckpointError):
        told: Exception = MisconfigurationException(
            "LibraGradAudit reads the graph more than once, which `torch.utils.checkpoint` does "
            "not allow; call `checkpoint` only `if self.training`."
        )
    elif isinstance(error, LibraGradError) and not is_out_of_memory(error):
        told = MisconfigurationException(str(error))
    else:
        return error
    told.__cause__ = error
    return told


def _told(failures: Sequence[Failure]) -> str:
    return "; ".join(f"in process {failure.rank}: {failure.message}" for failure in failures)


def _of_others(failures: Sequence[Failure]) -> Exception:
    kind = torch.OutOfMemoryError if failures[0].out_of_memory else MisconfigurationException
    return kind(f"LibraGradAudit gave up an audit {_told(failures)}")


def _warn(message: str, out_of_memory: bool) -> None:
    if not out_of_memory:
        hint = "; pass `on_error='raise'` to see where it failed"
    elif _OF_WEIGHTS in message:
        hint = ""  # The message says what to do.
    else:
        hint = "; images of a smaller size, or fewer `rules`, need less memory"
    rank_zero_warn(f"LibraGradAudit gave up an audit ({message}) and lets training go on{hint}.")
