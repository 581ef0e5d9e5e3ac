"""Maps beside masks: what every comparison of the two has to check and to take apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from libragrad_lightning.metrics.functional.checks import (
    check_boolean,
    check_floating_point,
    check_layout,
    check_shape,
)
from libragrad_lightning.metrics.functional.precision import accumulation_dtype

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MaskedMaps:
    """Maps and masks with their pixels in one dimension.

    Attributes:
        attribution: Maps [B, P].
        positive: Pixels of the objects that count [B, M, P], boolean.
        counted: Pixels that count [B, M, P] or [B, 1, P], boolean.
        several: Whether the masks were given with a dimension of their own.
        all_count: Whether no pixel was given to be left out.
    """

    attribution: Tensor
    positive: Tensor
    counted: Tensor
    several: bool
    all_count: bool

    @property
    def wide(self) -> Tensor:
        """Maps [B, 1, P], float64 (float32 on devices without float64)."""
        return self.attribution.to(accumulation_dtype(self.attribution.device))[:, None]

    @property
    def negative(self) -> Tensor:
        """Pixels of the background that count [B, M, P]."""
        return self.counted & ~self.positive

    @property
    def has_positive(self) -> Tensor:
        """Whether a mask has a pixel that counts [B, M]."""
        # Much faster than any().
        return self.positive.view(torch.uint8).amax(dim=-1).bool()

    @property
    def is_finite(self) -> Tensor:
        """Whether all values on pixels that count are finite [B, M]."""
        # A sum is finite only if all its terms are; that is quickly seen.
        finite = self.attribution.sum(dim=1).isfinite()[:, None]
        if not finite.all():
            finite = (self.attribution.isfinite()[:, None] | ~self.counted).all(dim=-1)
        return finite.expand(self.positive.shape[:2])

    def valid(self, values: Tensor) -> Tensor:
        """Write NaN to values [B, M, ...] of empty masks and of maps that are not finite."""
        bad = ~(self.has_positive & self.is_finite)
        values = values.masked_fill(bad.reshape(*bad.shape, *[1] * (values.ndim - 2)), float("nan"))
        return values if self.several else values[:, 0]


def read_masked_maps(attribution: Tensor, mask: Tensor, ignore: Tensor | None) -> MaskedMaps:
    """Check maps and masks, and flatten their pixels.

    Args:
        attribution: Signed maps [B, H, W], any floating point type.
        mask: Pixels of the object [B, H, W], or of M objects per image [B, M, H, W]; boolean.
        ignore: Pixels to leave out, [B, H, W] or shaped like ``mask``, boolean; None for none.

    Raises:
        ValueError: If a shape or a type is wrong.
    """
    check_masked_maps(attribution, mask, ignore)
    batch, pixels = len(attribution), attribution[0].numel()
    positive = mask.reshape(batch, -1, pixels)
    if ignore is None:
        counted = positive.new_ones(()).expand(batch, 1, pixels)
    else:
        counted = ~ignore.reshape(batch, -1, pixels)
        positive = positive & counted
    flat = attribution.reshape(batch, pixels)
    return MaskedMaps(flat, positive, counted, mask.ndim == 4, ignore is None)


def check_masked_maps(attribution: Tensor, mask: Tensor, ignore: Tensor | None) -> None:
    """Check the shapes and types of maps and masks.

    Args:
        attribution: Expected as [B, H, W], floating point.
        mask: Expected as [B, H, W] or [B, M, H, W], boolean.
        ignore: Expected as [B, H, W] or shaped like ``mask``, boolean, or None.

    Raises:
        ValueError: If one of them is something else.
    """
    check_maps("attribution", attribution)
    check_boolean("mask", mask)
    if mask.ndim == 4:
        check_layout("mask", mask, "[B, M, H, W]")
    _check_fits("mask", mask, attribution)
    if ignore is not None:
        check_boolean("ignore", ignore)
        if ignore.ndim == 4:
            check_shape("ignore", ignore, tuple(mask.shape), "mask")
        _check_fits("ignore", ignore, attribution)


def check_maps(argument: str, maps: Tensor) -> None:
    """Check that a tensor holds maps.

    Args:
        argument: Name of the argument, for the message.
        maps: Expected as [B, H, W], floating point, not empty.

    Raises:
        ValueError: If it is something else.
    """
    check_layout(argument, maps, "[B, H, W]")
    check_floating_point(argument, maps)


def scaled_down(values: Tensor, dim: int | tuple[int, ...] = -1) -> Tensor:
    """Return values times the power of two that brings the largest below 1: sums stay finite.

    Args:
        values: Floating point.
        dim: The dimensions over which one power serves.
    """
    largest = values.abs().amax(dim=dim, keepdim=True)
    finite = largest.nan_to_num(1.0, 1.0, 1.0).clamp_min(torch.finfo(values.dtype).tiny)
    exponent = finite.log2().ceil().int()
    # In halves, as no single power of two reaches from the largest numbers to 1.
    half = exponent // 2
    return torch.ldexp(torch.ldexp(values, -half), half - exponent)


def is_constant(attribution: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Tell which maps have one and the same value on all pixels that count.

    Args:
        attribution: Maps [B, H, W], any floating point type.
        ignore: Pixels to leave out, [B, H, W] or [B, M, H, W], boolean; with several masks per
            image, a pixel counts if it counts for any of them.

    Returns:
        Flags [B], boolean; False for maps with NaN, True for maps without a pixel that counts.
    """
    values = attribution.flatten(1)
    if ignore is None:
        return values.amax(dim=1) == values.amin(dim=1)
    left_out = ignore.reshape(len(values), -1, values.shape[1]).all(dim=1)
    low = values.masked_fill(left_out, float("inf")).amin(dim=1)
    high = values.masked_fill(left_out, -float("inf")).amax(dim=1)
    return high <= low


def is_degenerate(attribution: Tensor) -> Tensor:
    """Tell which maps explain nothing: they are constant or have a value that is not finite.

    Args:
        attribution: Maps [B, H, W], any floating point type.

    Returns:
        Flags [B], boolean.

    Raises:
        ValueError: If the shape or the type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import is_degenerate
        >>> nan = float("nan")
        >>> is_degenerate(torch.tensor([[[0.0, 0.0]], [[1.0, nan]], [[1.0, 2.0]]])).tolist()
        [True, True, False]
    """
    check_maps("attribution", attribution)
    return is_constant(attribution) | ~attribution.flatten(1).isfinite().all(dim=1)


def _check_fits(argument: str, flags: Tensor, attribution: Tensor) -> None:
    batch, height, width = attribution.shape
    shape = (batch, *flags.shape[1:-2], height, width) if flags.ndim == 4 else attribution.shape
    check_shape(argument, flags, tuple(shape), "attribution")
