"""How many images there is memory for."""

from __future__ import annotations

import torch
from torch import Tensor

from libragrad_lightning.models import TokenModel

MOST_AT_ONCE = 32
"""More are hardly faster, and a chunk is what one has to wait for to see how far an audit is."""
_ON_CPU = 2 * 2**30
_SHARE = 0.5
"""Of the free memory: a backward pass needs some beside what the forward pass has left."""


def images_that_fit(model: TokenModel, image: Tensor) -> int:
    """Return how many images can be explained at once, at least one and at most `MOST_AT_ONCE`.

    On CUDA, what a recorded forward pass keeps of them fits into half of the memory that is free
    beside the training state, or held by torch's allocator and not in use; elsewhere into 2 GiB.

    Args:
        model: The model.
        image: An image of their size `[1, C, H, W]`, on the model's device.
    """
    room = _SHARE * free_bytes(image.device) if image.is_cuda else _ON_CPU
    return max(1, min(MOST_AT_ONCE, int(room / max(1, model.bytes_recorded(image)))))


def free_bytes(device: torch.device) -> int:
    """Return how much memory of a CUDA device this process can still get, in bytes."""
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + held
