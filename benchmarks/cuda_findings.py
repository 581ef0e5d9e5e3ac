"""What a check of a device found, and the page that tells it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Setup:
    """Where and how large things are tried.

    Attributes:
        device: The device.
        tiny: Whether the smallest models and batches do, as on a CPU.
    """

    device: torch.device
    tiny: bool

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    def seconds(self, run: Callable[[], object]) -> float:
        """Return how long a call takes, the device's work included."""
        self._wait()
        start = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - start

    def medians(self, rounds: int, *runs: Callable[[], object]) -> list[float]:
        """Return the median seconds of each call; rounds alternate, the first warms up."""
        taken = [[self.seconds(run) for run in runs] for _ in range(rounds + 1)][1:]
        return [statistics.median(column) for column in zip(*taken, strict=True)]

    def peak(self, run: Callable[[], object]) -> float:
        """Return the GiB of CUDA memory that a call allocates at most beside what is there."""
        torch.cuda.synchronize(self.device)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        run()
        torch.cuda.synchronize(self.device)
        return (torch.cuda.max_memory_allocated(self.device) - before) / 2**30

    def _wait(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Finding:
    """One number, and what it may be at most.

    Attributes:
        what: What was tried.
        value: What was found; NaN if it could not be.
        limit: The largest value that is right; None where nothing is asked.
        note: What else is to say.
    """

    what: str
    value: float
    limit: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """``ok``, ``MISS``, or nothing if nothing was asked."""
        if self.limit is None:
            return ""
        return "ok" if self.value <= self.limit else "MISS"

    def row(self) -> tuple[str, ...]:
        limit = "" if self.limit is None else f"{self.limit:.3g}"
        return self.what, f"{self.value:.3g}", limit, self.verdict, self.note


HEADER = ("what", "found", "at most", "", "remarks")


def failed(what: str, error: Exception) -> Finding:
    """Return the finding that something could not be tried at all."""
    said = f"{type(error).__name__}: {error}".splitlines()[0].replace("|", "/")
    return Finding(what, float("nan"), 0.0, said[:160])


def tried(
    sections: Sequence[Callable[[Setup], Iterator[Finding]]], setup: Setup
) -> Iterator[Finding]:
    """Yield the findings of all sections; one that fails says nothing about the others."""
    for section in sections:
        try:
            yield from section(setup)
        except Exception as error:
            yield failed(section.__name__.replace("_", " "), error)


def misses(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings above their limits."""
    return [finding for finding in findings if finding.verdict == "MISS"]
