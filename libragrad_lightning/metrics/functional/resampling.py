"""How often each of n samples is drawn, if n are drawn with replacement.

Such numbers are distributed as counts of a multinomial distribution. Independent Poisson counts,
given their sum, are multinomial too, and take two bytes of a random stream each: a few draws fewer
than n are made of them, and the rest one by one.

Source: L. Devroye, Non-Uniform Random Variate Generation (1986), chapters III.2 and XI.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

_MARGIN = 3.0
"""By how many standard deviations the expected sum of Poisson counts is below n."""
_STEPS = 2**16
_MOST = 64
"""Counts as large happen with a probability that no double can tell from zero."""
_UNSURE = 255


@dataclass(frozen=True)
class Resampling:
    """Draws of n samples with replacement.

    Attributes:
        count: The number n of samples.
        generator: The source of random numbers.
    """

    count: int
    generator: np.random.Generator

    def times(self, draws: int) -> Tensor:
        """Return how often each sample is drawn, uint8 `[draws, n]`; rows add up to n."""
        times = self._poisson(draws)
        missing = self.count - times.sum(1)
        while (missing < 0).any():  # whatever a sum up to n is, what is missing is drawn alike
            times[missing < 0] = self._poisson(int((missing < 0).sum()))
            missing = self.count - times.sum(1)
        starts = torch.arange(draws).repeat_interleave(missing) * self.count
        drawn = torch.from_numpy(self.generator.integers(self.count, size=len(starts)))
        ones = torch.ones(len(starts), dtype=times.dtype)
        times.view(-1).scatter_add_(0, starts + drawn, ones)
        return times

    def _poisson(self, draws: int) -> Tensor:
        """Return independent Poisson counts, uint8 `[draws, n]`, by inversion of uniform numbers.

        Their first 16 bits tell most counts; where these leave several, others are drawn.
        """
        cells = draws * self.count
        words = self.generator.bit_generator.random_raw(-(-cells // 4))
        first = words.view(np.uint16)[:cells]
        counts = self._by_first_bits.take(first)
        unsure = np.flatnonzero(counts == _UNSURE)
        uniform = (first[unsure] + self.generator.random(len(unsure))) / _STEPS
        counts[unsure] = np.searchsorted(self._cumulative, uniform, side="right")
        return torch.from_numpy(counts).view(draws, self.count)

    @cached_property
    def _cumulative(self) -> np.ndarray:
        """The probabilities that a Poisson count is at most 0, 1, 2, ..."""
        rate = max(0.0, 1 - _MARGIN / math.sqrt(self.count))
        return np.cumsum([math.exp(-rate) * rate**k / math.factorial(k) for k in range(_MOST)])

    @cached_property
    def _by_first_bits(self) -> np.ndarray:
        """The count for each way in which a uniform number may start, if there is only one."""
        edges = np.arange(_STEPS + 1) / _STEPS
        least = np.searchsorted(self._cumulative, edges[:-1], side="right")
        most = np.searchsorted(self._cumulative, edges[1:], side="left")
        return np.where(least == most, least, _UNSURE).astype(np.uint8)
