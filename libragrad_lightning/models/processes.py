"""What processes tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def is_grouped() -> bool:
    """Return whether this process is one of a group, which may be of one."""
    return dist.is_available() and dist.is_initialized()


def gathered(item: T) -> Sequence[T]:
    """Return the item of every process, by rank. Every process has to call it."""
    if not is_grouped() or dist.get_world_size() == 1:
        return [item]
    items: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(items, item)
    return items  # type: ignore[return-value]
