"""Sorting along the last dimension, by whichever routine is fast on the tensor's device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from libragrad_lightning.metrics.functional.precision import accumulation_dtype

if TYPE_CHECKING:
    from torch import Tensor


def sort_values(values: Tensor) -> Tensor:
    """Sort each row in ascending order.

    Args:
        values: Rows [..., P] without NaN, float32, float64 or an integer type.

    Returns:
        The sorted rows [..., P].
    """
    # numpy sorts with vector instructions where torch's sort, which also moves indices, does not.
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.detach().numpy(), axis=-1))
    return values.sort(dim=-1).values


def argsort(values: Tensor) -> Tensor:
    """Return the indices that sort each row in ascending order, equal values in any order.

    Args:
        values: Rows [..., P] without NaN, float32, float64 or an integer type.

    Returns:
        Indices [..., P], int64.
    """
    if values.device.type == "cpu":
        return torch.from_numpy(np.argsort(values.detach().numpy(), axis=-1))
    return values.argsort(dim=-1)


def dense_ranks(values: Tensor) -> Tensor:
    """Replace each value by its place among the distinct values of its row.

    Args:
        values: Rows [..., P] without NaN, float32, float64 or an integer type.

    Returns:
        Ranks from 0 for the smallest value, equal for equal values: [..., P], int64.
    """
    order = argsort(values)
    ordered = values.gather(-1, order)
    steps = torch.zeros_like(order)
    steps[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    return torch.empty_like(order).scatter_(-1, order, steps.cumsum(dim=-1))


def average_ranks(values: Tensor) -> Tensor:
    """Return the ranks of each row, equal values sharing the mean of their places.

    Args:
        values: Rows [..., P] without NaN, float32, float64 or an integer type.

    Returns:
        Ranks from 1 for the smallest value: [..., P], float64 (float32 on devices without it).
    """
    ordered = sort_values(values).contiguous()
    values = values.contiguous()
    below = torch.searchsorted(ordered, values, right=False)
    up_to = torch.searchsorted(ordered, values, right=True)
    return (below + up_to + 1).to(accumulation_dtype(values.device)) / 2
