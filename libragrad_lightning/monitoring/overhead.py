"""How much of the time of an epoch audits take, and how many images they may have."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from libragrad_lightning.audit import TimeBudget
from libragrad_lightning.models import gathered

_PICTURE = 0.1
"""Seconds to write a picture, until that has been measured."""
_FOR_PICTURES = 0.5
"""Share of the room that pictures may take."""
_FIRST = 0.5
"""Share of the room for the first audit, of which nothing is known."""
_SAFETY = 0.9
"""How much of the time that there will be is planned with."""


@dataclass(frozen=True)
class Lack:
    """There is too little time for an audit.

    Attributes:
        needed: The seconds that one image takes, as far as is known.
        left: The seconds that are left.
    """

    needed: float
    left: float


class Overhead:
    """Counts the time of all hooks, and plans audits so that it stays within a limit.

    What an audit takes is so much for every image, so much for every picture, and the rest.

    Args:
        largest_fraction: Of the time that an epoch takes without audits; None for no limit.

    Attributes:
        max_samples: How many images are explained, over all processes; None for all.
    """

    def __init__(self, largest_fraction: float | None) -> None:
        self.largest_fraction = largest_fraction
        self.max_samples: int | None = None
        self._begin: float | None = None
        self._entered: float | None = None
        self._in_epoch = self._in_audit = 0.0
        self._audits, self._picture, self._image = 0, _PICTURE, 0.0
        self._before = self._after = self._rest = self._settled = 0.0
        self._one = self._saved = 0.0
        self._is_postponed = False

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return self.largest_fraction is not None

    @property
    def has_room(self) -> bool:
        """Whether there is time for something that can be left out."""
        room = self._room()
        return room is None or room > 0

    @property
    def seconds(self) -> float:
        """What hooks have taken since the last audit began."""
        return self._in_audit + self._running()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the time that is spent inside, once if it is entered again there."""
        if self._entered is not None:
            yield
            return
        self._entered = time.monotonic()
        try:
            yield
        finally:
            taken, self._entered = self._running(), None
            self._in_epoch += taken
            self._in_audit += taken

    def begin_epoch(self) -> None:
        """Start the clock."""
        now = time.monotonic()
        self._begin, self._in_epoch, self._audits, self._is_postponed = now, 0.0, 0, False
        if self._entered is not None:
            self._entered = now

    def end_epoch(self) -> None:
        """Stop the clock: outside of epochs audits may take any time.

        What an epoch leaves of the time for audits is saved while one is postponed.
        """
        left = self._left()
        postponed = self._is_postponed and not self._audits
        self._begin, self._saved = None, left if postponed and left is not None else 0.0

    def begin_audit(self) -> None:
        """Count what an audit takes from now on."""
        if self._settled:
            self._rest += self.seconds - self._settled
        self._in_audit, self._settled = -self._running(), 0.0

    def expect(self, seconds: float) -> None:
        """Learn what it takes to explain one image, before the first audit."""
        self._one = seconds

    def lacks(self) -> Lack | None:
        """Return what the least audit lacks; None if there is time for it."""
        left = self._left()
        needed = self._rest + self._image if self._image else self._one
        return None if left is None or left >= needed else Lack(needed, max(0.0, left))

    def postpone(self) -> None:
        """Save what this epoch leaves for a later audit."""
        self._is_postponed = True

    def allow(self, max_samples: int | None) -> None:
        """Allow so many images; None for all of them."""
        self.max_samples = max_samples

    def pictures(self) -> int | None:
        """Return how many pictures there is time for; None if for any number."""
        room = self._room()
        if room is None:
            return None
        return int(_FOR_PICTURES * max(0.0, room - self._image) / self._picture)

    def budget(self, pictures: int) -> TimeBudget:
        """Return the time for the images of an audit, beside that many pictures."""
        room, self._before = self._room(), self.seconds
        if room is None:
            return TimeBudget()
        return TimeBudget(time.monotonic() + room - pictures * self._picture)

    def settle(self, budget: TimeBudget, pictures: int, writing: float) -> None:
        """Learn from an audit what audits take.

        Args:
            budget: The images that it had, and the time for them.
            pictures: How many were written.
            writing: The seconds that took.
        """
        self._audits += 1
        if pictures:
            self._picture = writing / pictures
        if budget.images:
            self._image = budget.seconds / budget.images
        self._rest = max(0.0, self.seconds - budget.seconds - writing)
        self._after, self._settled = max(0.0, self._rest - self._before), self.seconds

    def affordable(self, pictures: int) -> int | None:
        """Return how many images there is time for in an epoch like this one; None if for all.

        Args:
            pictures: How many pictures are wanted.
        """
        limit, others = self.largest_fraction, self._others()
        if limit is None or not self._image or not self._audits:
            return None
        room = _SAFETY * limit * others / self._audits - self._rest
        drawn = min(pictures * self._picture, _FOR_PICTURES * max(0.0, room))
        return max(1, math.floor((room - drawn) / self._image))

    def keep_within(self, pictures: int, size: int, samples: int) -> str:
        """Allow fewer images, or more if there is time for twice as many; return what to say of it.

        Every process has to call it.

        Args:
            pictures: How many pictures are wanted.
            size: How many images this process would have without a limit.
            samples: How many the last audit had, over all processes.
        """
        found = gathered((self.affordable(pictures), size))
        least = min((n for n, _ in found if n is not None), default=None)
        if least is None:
            return ""
        affordable, wanted = len(found) * least, sum(own for _, own in found)
        before = wanted if self.max_samples is None else min(self.max_samples, wanted)
        chosen = min(affordable, wanted)
        if samples <= chosen < min(2 * samples, wanted):
            chosen = samples
        if chosen == before:
            return ""
        self.max_samples = chosen if chosen < wanted else None
        return (
            f"LibraGradAudit explains {chosen} images in place of {before} from now on, as there "
            f"is time for; pass a larger `max_overhead` than {self.largest_fraction} for more."
        )

    def _running(self) -> float:
        return 0.0 if self._entered is None else time.monotonic() - self._entered

    def _others(self) -> float:
        """Return the time of the epoch so far without hooks."""
        if self._begin is None:
            return 0.0
        return time.monotonic() - self._begin - self._in_epoch - self._running()

    def _left(self) -> float | None:
        """Return the seconds left for audits; None if they may take any."""
        if self.largest_fraction is None or self._begin is None:
            return None
        taken = self._in_epoch + self._running()
        return self.largest_fraction * self._others() - taken + self._saved

    def _room(self) -> float | None:
        """Return the seconds left for images and pictures; None if they may take any."""
        left = self._left()
        if left is None:
            return None
        return left - self._after if self._image else _FIRST * left
