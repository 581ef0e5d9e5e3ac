"""The probe set: the validation images that every audit explains."""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from libragrad_lightning.audit.samples import MaskNumbers, Samples, joined, with_object_masks
from libragrad_lightning.audit.selection import First, Place, Selection


@dataclass(frozen=True)
class Shard:
    """Which images of a loader a process sees.

    Attributes:
        rank: The process.
        world_size: How many processes there are.
        total: How many images there are without the repeated ones that even out shards; None if
            nothing is repeated.
    """

    rank: int = 0
    world_size: int = 1
    total: int | None = None

    def sample_id(self, position: int) -> int | None:
        """Return the id of the image at a position of this process, None for a repeated one."""
        found = position * self.world_size + self.rank
        return None if self.total is not None and found >= self.total else found


def shard_of(loader: Any, rank: int, world_size: int) -> Shard:
    """Return the shard of a process of one of the Trainer's loaders."""
    samplers = [getattr(loader, "sampler", None)]
    samplers.append(getattr(getattr(loader, "batch_sampler", None), "sampler", None))
    for sampler in samplers:
        if isinstance(sampler, DistributedSampler):
            return Shard(rank, world_size, len(sampler.dataset))  # type: ignore[arg-type]
    return Shard(rank, world_size)


@dataclass(frozen=True)
class ProbeGroup:
    """Images of the probe set that have one size.

    Attributes:
        ids: Their places in the validation loader.
        numbers: Their places in the probe set.
        samples: The images.
    """

    ids: tuple[int, ...]
    numbers: tuple[int, ...]
    samples: Samples

    def first(self) -> ProbeGroup:
        """Return the first image alone."""
        return ProbeGroup(self.ids[:1], self.numbers[:1], self.samples[slice(0, 1)])


class ProbeSet:
    """Collects the images of a selection as validation batches pass by; then they stay.

    Args:
        selection: Which images.
        shard: Which images of the loader this process sees.
    """

    def __init__(self, selection: Selection, shard: Shard) -> None:
        self._selection, self._shard = selection, shard
        self._kept: dict[Place, tuple[int, Samples]] = {}
        self._position = 0
        self._mask_numbers = MaskNumbers()
        self.is_fixed = False

    @property
    def is_complete(self) -> bool:
        """Whether no image that may still come is wanted; the same in every process."""
        last, seen = self._selection.last, self._position * self._shard.world_size
        return self.is_fixed or (last is not None and seen > last)

    @property
    def ids(self) -> list[int]:
        """The ids of this process's images, in their order."""
        return [sample_id for _, (sample_id, _) in sorted(self._kept.items(), key=_place)]

    def groups(self, limit: int | None = None) -> list[ProbeGroup]:
        """Return the images of this process by size, with masks of objects.

        Args:
            limit: How many images there may be, over all processes together.
        """
        count = len(self._kept) if limit is None else self.own_part(limit)
        rows = [row for _, row in sorted(self._kept.items(), key=_place)]
        masked = with_object_masks([samples for _, samples in rows])[:count]
        return [
            ProbeGroup(
                tuple(rows[n][0] for n in numbers),
                tuple(numbers),
                joined([masked[n] for n in numbers]),
            )
            for numbers in _by_size(masked)
        ]

    @property
    def comes_in_order(self) -> bool:
        """Whether it is known of each image at once that it is wanted, and which number it has."""
        return isinstance(self._selection, First)

    def has(self, count: int) -> bool:
        """Return whether there are so many images of one size."""
        sizes = Counter(samples.size for _, samples in self._kept.values())
        return max(sizes.values(), default=0) >= count

    def taken(self, count: int) -> list[ProbeGroup]:
        """Return images by size, a multiple of so many of each, and keep them no longer.

        Call it only if images come in order.

        Raises:
            AuditError: If their masks contradict those of images that were taken before.
        """
        places = sorted(self._kept)
        sizes = _by_size([self._kept[place][1] for place in places])
        whole = [numbers[: len(numbers) // count * count] for numbers in sizes]
        return [self._take([places[n] for n in numbers]) for numbers in whole if numbers]

    def _take(self, places: Sequence[Place]) -> ProbeGroup:
        rank, world_size = self._shard.rank, self._shard.world_size
        rows = [self._kept.pop(place) for place in places]
        masked = self._mask_numbers.of_objects([samples for _, samples in rows])
        ids = tuple(sample_id for sample_id, _ in rows)
        numbers = tuple((sample_id - rank) // world_size for sample_id in ids)
        return ProbeGroup(ids, numbers, joined(masked))

    def own_part(self, size: int) -> int:
        """Return how many images this process has of the first so many over all processes."""
        rank, world_size = self._shard.rank, self._shard.world_size
        return (size + world_size - 1 - rank) // world_size

    def add(self, batch: Samples) -> None:
        """Look at the next batch.

        Call it outside of inference mode, so that the kept images can be differentiated.
        """
        for row, label in enumerate(_classes(batch)):
            sample_id = self._shard.sample_id(self._position + row)
            place = None if sample_id is None else self._selection.place(sample_id, label)
            if sample_id is not None and place is not None and self._has_room(place):
                self._kept[place] = (sample_id, batch[slice(row, row + 1)].stored())
        self._position += len(batch)

    def fix(self) -> None:
        """Take what is there as the probe set from now on."""
        self.is_fixed = True

    def _has_room(self, place: Place) -> bool:
        """Make room for an image if it comes before others."""
        if self._selection.last is not None or len(self._kept) < self.own_part(
            self._selection.size
        ):
            return True
        largest = max(self._kept, default=place)
        if place >= largest:
            return False
        del self._kept[largest]
        return True


def fingerprint(image: Tensor) -> int:
    """Return a number that changes with the pixels of an image."""
    return zlib.crc32(image.contiguous().view(torch.uint8).numpy().tobytes())


def _classes(batch: Samples) -> Sequence[int | None]:
    if batch.labels is None or batch.labels.dim() != 1:
        return [None] * len(batch)
    found: list[int] = batch.labels.tolist()
    return found


def _by_size(samples: Sequence[Samples]) -> Iterable[list[int]]:
    """Return the numbers of samples that have one size."""
    by_size: dict[Any, list[int]] = defaultdict(list)
    for number, some in enumerate(samples):
        by_size[some.size].append(number)
    return by_size.values()


def _place(item: tuple[Place, Any]) -> Place:
    return item[0]
