"""How many images there is memory for."""

from __future__ import annotations

from torch import Tensor

from libragrad_lightning.models import TokenModel, free_bytes

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
    free = free_bytes(image.device)
    room = _ON_CPU if free is None else _SHARE * free
    return max(1, min(MOST_AT_ONCE, int(room / max(1, model.bytes_recorded(image)))))
