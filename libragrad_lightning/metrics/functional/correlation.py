"""Cosine and correlation of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def row_cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine of the angle between rows; 0/0 is NaN.

    Args:
        first: Rows [B, P], floating point.
        second: Rows [B, P], floating point.

    Returns:
        Values in [-1, 1], [B].
    """
    products = (first * second).sum(dim=1)
    sizes = first.square().sum(dim=1) * second.square().sum(dim=1)
    return (products / sizes.sqrt()).clamp(-1, 1)


def row_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return Pearson's correlation of rows; 0/0, up to rounding, where all values are equal.

    Args:
        first: Rows [B, P], floating point.
        second: Rows [B, P], floating point.

    Returns:
        Values in [-1, 1], [B].
    """
    return row_cosine(*(row - row.mean(dim=1, keepdim=True) for row in (first, second)))
