"""How many rows at once are fastest, found out while they are run."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

_BEGIN = 32
"""Where to begin: on CPUs, larger batches than this one leave the caches as a rule."""
_TRIES = 2
"""The first of them may have to prepare its kernels."""
_GAIN = 0.95
"""A size is better than another if it takes less than this share of its time."""


@dataclass
class FastestRows:
    """Tries twice and half as many rows as were fastest so far, until neither is faster.

    Nothing is run for it that is not wanted anyway. Results do not depend on it, up to the rounding
    of batches of other sizes.
    """

    _seconds: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def at_once(self, most: int) -> int:
        """Return how many rows to run next.

        Args:
            most: How many there is room for.
        """
        best = min(_BEGIN, most)
        while True:
            near = [n for n in (best, 2 * best, best // 2) if 1 <= n <= most]
            untried = [n for n in near if len(self._seconds[n]) < _TRIES]
            if untried:
                return untried[0]
            faster = min(near, key=self._least)
            if self._least(faster) >= _GAIN * self._least(best):
                return best
            best = faster

    def took(self, size: int, seconds: float) -> None:
        """Remember how long so many rows took."""
        if len(self._seconds[size]) < _TRIES:
            self._seconds[size].append(seconds / size)

    def _least(self, size: int) -> float:
        return min(self._seconds[size])
