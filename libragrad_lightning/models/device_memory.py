"""How much memory a device has left for this process."""

from __future__ import annotations

import torch


def free_bytes(device: torch.device) -> int | None:
    """Return how much memory this process can still get; None where it is not known.

    What torch's allocator holds and does not use counts, and so does the limit that
    `torch.cuda.set_per_process_memory_fraction` has set.

    Args:
        device: The device.
    """
    if device.type != "cuda":
        return None
    free, whole = torch.cuda.mem_get_info(device)
    used = torch.cuda.memory_allocated(device)
    held = torch.cuda.memory_reserved(device) - used
    return min(free + held, int(_share_allowed(device) * whole) - used)


def _share_allowed(device: torch.device) -> float:
    # Releases before 2.8 of torch do not tell it.
    told = getattr(torch.cuda.memory, "get_per_process_memory_fraction", None)
    return 1.0 if told is None else told(device)
