"""The floating-point type that the metrics compute and accumulate in."""

from __future__ import annotations

import torch

DEVICES_WITHOUT_FLOAT64 = frozenset({"mps"})


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """Return the widest floating-point type of a device.

    Args:
        device: Device that holds the tensors.

    Returns:
        ``torch.float64``, or ``torch.float32`` on devices that have no float64.
    """
    return torch.float32 if device.type in DEVICES_WITHOUT_FLOAT64 else torch.float64
