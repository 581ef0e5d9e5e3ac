"""Shows how far an audit is, in the Trainer's own progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from rich.progress import Progress, TaskID
from tqdm import tqdm

from libragrad_lightning.both_lightnings import in_both

_DELAY = 2.0
"""After how many seconds an audit is long enough to be shown."""


class AuditProgress(Protocol):
    """Is told how many images are done."""

    def update(self, count: int, /) -> object:
        """Go on by a number of images."""


class RichTask:
    """A line in the display of Lightning's `RichProgressBar`.

    A bar of its own would write over that display, which is drawn anew all the time.

    Args:
        progress: The display.
        name: What the line is called.
        total: How many images there are.
    """

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self._progress, self._name, self._total = progress, name, total
        self._begin, self._done = time.monotonic(), 0
        self._task: TaskID | None = None

    def update(self, count: int) -> None:
        """Go on by a number of images."""
        self._done += count
        if self._task is None and time.monotonic() - self._begin >= _DELAY:
            self._task = self._progress.add_task(self._name, total=self._total)
        if self._task is not None:
            self._progress.update(self._task, completed=self._done)
            self._progress.refresh()

    def close(self) -> None:
        """Remove the line."""
        if self._task is not None:
            self._progress.remove_task(self._task)


@contextmanager
def audit_progress(trainer: pl.Trainer, name: str, total: int) -> Iterator[AuditProgress]:
    """Show how many images are done, once that has taken two seconds.

    Nothing is shown where the Trainer shows nothing.

    Args:
        trainer: The Trainer.
        name: What is in progress.
        total: How many images there are.
    """
    bar = trainer.progress_bar_callback
    is_shown = trainer.is_global_zero and bar is not None and getattr(bar, "is_enabled", True)
    if is_shown and isinstance(bar, in_both(RichProgressBar)) and bar.progress is not None:
        task = RichTask(bar.progress, name, total)
        try:
            yield task
        finally:
            task.close()
        return
    with _tqdm(bar, name, total, is_shown) as lines:
        yield lines


def _tqdm(bar: ProgressBar | None, name: str, total: int, is_shown: bool) -> tqdm:
    """Return a bar below those of Lightning, if they are of the same kind."""
    if isinstance(bar, in_both(TQDMProgressBar)):
        return Tqdm(
            desc=name,
            total=total,
            position=2 * bar.process_position + 2,
            leave=False,
            delay=_DELAY,
            disable=not is_shown,
            dynamic_ncols=True,
            file=sys.stdout,
            bar_format=bar.BAR_FORMAT,
        )
    return tqdm(total=total, desc=name, leave=False, delay=_DELAY, disable=not is_shown)
