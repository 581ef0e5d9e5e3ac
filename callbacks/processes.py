"""What the processes of a run tell each other about an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """One process's part of an audit.

    Attributes:
        ids: The ids of its images.
        fingerprints: Of its images.
        maps: Their maps `[N, h, w]` by rule set, float32 on the CPU; empty without images.
        seconds: How long it took.
        peak_memory_gib: The most CUDA memory in use meanwhile, in GiB; None where that is unknown.
        error: Why it failed, or None.
        out_of_memory: Whether it failed because memory ran out.
    """

    ids: list[int] = field(default_factory=list)
    fingerprints: list[int] = field(default_factory=list)
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory_gib: float | None = None
    error: str | None = None
    out_of_memory: bool = False

    def failure(self) -> Exception:
        """Return the error as other processes see it."""
        kind = torch.OutOfMemoryError if self.out_of_memory else RuntimeError
        return kind(f"in another process: {self.error}")


def gathered(item: T) -> Sequence[T]:
    """Return the item of every process, by rank. Every process has to call it."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [item]
    items: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(items, item)
    return items  # type: ignore[return-value]
