"""From model inputs to images that can be shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_LARGEST_SHARE = 2.0
"""What is larger is no pixel, mean or deviation of images in [0, 1], but counts bytes."""


def to_display_range(
    images: Tensor,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
) -> Tensor:
    """Bring model inputs to RGB images in [0, 1].

    Images of 0 ... 255 are divided by 255: bytes, and batches of whole numbers in that range of
    which one is above 2, whatever their type. They have not been normalized, so ``mean`` and
    ``std`` do not apply.

    For any other, the normalization by ``mean`` or ``std`` is undone and the result clamped. If one
    of their values is above 2, as in [123.7, 116.3, 103.5] with [58.4, 57.1, 57.4] or [1, 1, 1],
    they are in units of 0 ... 255, and the result is divided by 255.

    Without ``mean`` and ``std``, an image that lies in [0, 1] is left as it is, and any other is
    stretched from its own minimum and maximum, over all its channels together.

    One channel is shown as gray, of two channels their mean; of four and more (alpha, spectral
    bands) the first three are shown. Values that are not finite count as 0.

    Args:
        images: Inputs [B, C, H, W], floating point or integer; B may be 0.
        mean: Mean that was subtracted from the inputs, one value per channel or one for all.
            Default: 0.
        std: Standard deviation that they were divided by, likewise. Default: 1.

    Returns:
        Images [B, 3, H, W], float32 in [0, 1], sharing no memory with ``images``.

    Raises:
        ValueError: If ``images`` is not [B, C, H, W], or ``mean`` or ``std`` does not fit C.
    """
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"images must be [B, C, H, W], but their shape is {list(images.shape)}.")
    offset = _per_channel(0.0 if mean is None else mean, images, "mean")
    scale = _per_channel(1.0 if std is None else std, images, "std")
    pixels = images.detach().float().nan_to_num(0.0, 0.0, 0.0)
    if images.dtype == torch.uint8 or _are_bytes(pixels):
        return _to_rgb(pixels / 255)
    if mean is None and std is None:
        return _stretch(_to_rgb(pixels))
    largest = max(float(offset.abs().max()), float(scale.abs().max()))
    unit = 255 if largest > _LARGEST_SHARE else 1
    return _to_rgb((pixels * scale + offset) / unit).clamp(0, 1)


def _are_bytes(pixels: Tensor) -> bool:
    """Decide for the whole batch: one image alone may be too dark to tell."""
    whole = (pixels >= 0) & (pixels <= 255) & (pixels == pixels.round())
    return bool(whole.all() and (pixels > _LARGEST_SHARE).any())


def _per_channel(values: Sequence[float] | Tensor | float, images: Tensor, name: str) -> Tensor:
    column = torch.as_tensor(values, dtype=torch.float32, device=images.device).reshape(-1, 1, 1)
    if len(column) not in (1, images.shape[1]):
        raise ValueError(
            f"{name} holds {len(column)} values for images of {images.shape[1]} channels; "
            f"give {name} one value per channel, or one for all."
        )
    return column


def _to_rgb(images: Tensor) -> Tensor:
    if images.shape[1] < 3:
        # Divided first, since the sum of the largest numbers would be infinite.
        return (images / images.shape[1]).sum(dim=1, keepdim=True).repeat(1, 3, 1, 1)
    return images[:, :3].clone()


def _stretch(images: Tensor) -> Tensor:
    low = images.amin(dim=(1, 2, 3), keepdim=True)
    high = images.amax(dim=(1, 2, 3), keepdim=True)
    shown_as_is = (low >= 0) & (high <= 1)
    # Halved for the same reason.
    span = torch.where(high > low, high / 2 - low / 2, 1.0)
    return torch.where(shown_as_is, images, (images / 2 - low / 2) / span).clamp(0, 1)
