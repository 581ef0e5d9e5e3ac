"""How many images there is time for, found out while they are explained."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass
class TimeBudget:
    """Lets images be explained while there is time for them, the first one in any case.

    With an end in sight, one image goes first, then twice as many each time.

    Attributes:
        until: When to end, on the clock of `time.monotonic`.
        images: How many images have been explained.
        seconds: How long that took.
    """

    until: float = math.inf
    images: int = 0
    seconds: float = 0.0
    _rate: float = 0.0
    _largest: int = 0

    def images_at_once(self, most: int) -> int:
        """Return how many images to explain next; 0 if there is no time for any.

        Args:
            most: How many there is room for.
        """
        if self.until == math.inf:
            return most
        if not self.images:
            return 1
        left = max(0.0, self.until - time.monotonic())
        return min(most, 2 * self._largest, int(left / self._rate))

    def took(self, images: int, seconds: float) -> None:
        """Count images that were explained at once."""
        self.images += images
        self.seconds += seconds
        self._rate = max(seconds / images, 1e-9)
        self._largest = max(self._largest, images)
