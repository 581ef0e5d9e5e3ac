"""Noise to ask a graph with: the same at every call, on every device."""

from __future__ import annotations

import torch
from torch import Tensor

_SALT = 12345
"""Images that somebody draws with a small seed must not be the very noise that moves them: a model
that norms its input would not see it."""


def noise_like(tensor: Tensor, seed: int = 0) -> Tensor:
    """Return standard normal noise in the shape, dtype and device of a tensor."""
    generator = torch.Generator().manual_seed(_SALT + seed)
    return torch.randn(tensor.shape, generator=generator).to(tensor)


def image_seeds(images: Tensor, seed: int = 0) -> list[int]:
    """Return 32 bits for every image, which its pixels determine; one wait for the device.

    Multilinear hashing wraps alike on all devices.

    Args:
        images: `[B, C, H, W]`; read in float32, so that equal images in another precision have
            equal seeds.
        seed: For other bits of the same images.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randint(2**63 - 1, images.shape[1:], generator=generator).to(images.device)
    # One image at a time, as its products take more memory than the image.
    sums = [(image.float().view(torch.int32) * weights).sum() for image in images]
    # The upper half: the lower bits of a product know nothing of the upper bits of its factors.
    return [value >> 32 & 0xFFFFFFFF for value in torch.stack(sums).tolist()]


def image_generators(images: Tensor, seed: int = 0) -> list[torch.Generator]:
    """Return for every image a source of random numbers on the CPU, which its pixels determine.

    So an image draws the same in any batch, on any device and in any process.

    Args:
        images: `[B, C, H, W]`.
        seed: For other numbers of the same images.
    """
    return [torch.Generator().manual_seed(bits) for bits in image_seeds(images, seed)]
