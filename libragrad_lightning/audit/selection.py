"""Which validation images make up the probe set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

Place = tuple[int, ...]
"""Where an image stands in the probe set: smaller comes first."""


class Selection(Protocol):
    """Chooses images as a validation passes by.

    Attributes:
        size: How many images it keeps at most, over all processes.
        last: The largest id that it may want, or None if every image has to be seen.
    """

    size: int
    last: int | None

    def place(self, sample_id: int, label: int | None) -> Place | None:
        """Return where an image would stand, or None if it is not wanted.

        Args:
            sample_id: Its place in the validation loader, over all processes, from 0.
            label: Its class, or None.
        """


@dataclass
class First:
    """The first images."""

    size: int

    def __post_init__(self) -> None:
        self.last: int | None = self.size - 1

    def place(self, sample_id: int, label: int | None) -> Place | None:
        """Return the id."""
        return (sample_id,) if sample_id < self.size else None


@dataclass
class Named:
    """The images with certain ids, in their order."""

    ids: Sequence[int]

    def __post_init__(self) -> None:
        self.size = len(self.ids)
        self.last: int | None = max(self.ids)
        self._places = {sample_id: place for place, sample_id in enumerate(self.ids)}

    def place(self, sample_id: int, label: int | None) -> Place | None:
        """Return the place in the list."""
        place = self._places.get(sample_id)
        return None if place is None else (place,)


@dataclass
class Stratified:
    """The first image of every class, then the second of every class, and so on.

    So every beginning of the probe set is as balanced as it can be. Images without a label are a
    class of their own.
    """

    size: int
    last: int | None = None
    _seen: Counter[int | None] = field(default_factory=Counter, repr=False)

    def place(self, sample_id: int, label: int | None) -> Place | None:
        """Return how many of the class came before, then the id."""
        self._seen[label] += 1
        return (self._seen[label], sample_id)


@dataclass(frozen=True)
class ProbeRequest:
    """Which images a user wants to be explained.

    Attributes:
        probe: ``first``, ``stratified``, or ids.
        max_samples: How many at most, unless there are ids.
        dataloader_idx: Of which validation loader.
    """

    probe: str | tuple[int, ...]
    max_samples: int
    dataloader_idx: int

    def selection(self) -> Selection:
        """Return a fresh selection."""
        if isinstance(self.probe, tuple):
            return Named(self.probe)
        return First(self.max_samples) if self.probe == "first" else Stratified(self.max_samples)
