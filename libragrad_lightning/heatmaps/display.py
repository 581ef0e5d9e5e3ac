"""From model inputs to images that can be shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_display_range(
    images: Tensor,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
) -> Tensor:
    """Bring model inputs to RGB images in [0, 1].

    With ``mean`` or ``std``, the normalisation is undone and the result clamped. Without them,
    bytes are divided by 255, an image that lies in [0, 1] is left as it is, and any other is
    stretched from its own minimum and maximum, over all its channels together.

    One channel is shown as grey, of two channels their mean; of four and more (alpha, spectral
    bands) the first three are shown. Values that are not finite count as 0.

    Args:
        images: Inputs [B, C, H, W], floating point or integer.
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
    pixels = images.detach().float().nan_to_num(0.0, 0.0, 0.0)
    if images.dtype == torch.uint8:
        pixels = pixels / 255
    if mean is not None or std is not None:
        return _to_rgb(_unnormalize(pixels, mean, std)).clamp(0, 1)
    return _stretch(_to_rgb(pixels))


def _unnormalize(
    images: Tensor, mean: Sequence[float] | Tensor | None, std: Sequence[float] | Tensor | None
) -> Tensor:
    offset = _per_channel(0.0 if mean is None else mean, images, "mean")
    scale = _per_channel(1.0 if std is None else std, images, "std")
    return images * scale + offset


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
        return images.mean(dim=1, keepdim=True).repeat(1, 3, 1, 1)
    return images[:, :3].clone()


def _stretch(images: Tensor) -> Tensor:
    low = images.amin(dim=(1, 2, 3), keepdim=True)
    high = images.amax(dim=(1, 2, 3), keepdim=True)
    shown_as_is = (low >= 0) & (high <= 1)
    span = torch.where(high > low, high - low, 1.0)
    return torch.where(shown_as_is, images, (images - low) / span)
