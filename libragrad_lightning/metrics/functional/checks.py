"""Checks of arguments, shared by the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def check_layout(argument: str, value: Tensor, layout: str) -> None:
    """Check that a tensor has the right number of dimensions and is not empty.

    Args:
        argument: Name of the argument, for the message.
        value: The tensor to check.
        layout: The expected dimensions, such as ``"[B, S, C]"``.

    Raises:
        ValueError: If the number of dimensions differs or one of them is zero.
    """
    if value.ndim != layout.count(",") + 1:
        raise ValueError(
            f"Expected argument `{argument}` to have shape {layout} but got {list(value.shape)}."
        )
    if value.numel() == 0:
        raise ValueError(
            f"Expected argument `{argument}` to hold at least one value"
            f" but got shape {list(value.shape)}."
        )


def check_shape(argument: str, value: Tensor, shape: tuple[int, ...], like: str) -> None:
    """Check that a tensor has one exact shape.

    Args:
        argument: Name of the argument, for the message.
        value: The tensor to check.
        shape: The expected shape.
        like: Name of the argument that the shape comes from.

    Raises:
        ValueError: If the shape differs.
    """
    if value.shape != shape:
        raise ValueError(
            f"Expected argument `{argument}` to have shape {list(shape)} to match `{like}`"
            f" but got {list(value.shape)}."
        )


def check_floating_point(argument: str, value: Tensor) -> None:
    """Check that a tensor is real and floating point.

    Args:
        argument: Name of the argument, for the message.
        value: The tensor to check.

    Raises:
        ValueError: If the type is an integer, boolean or complex one.
    """
    if not value.is_floating_point():
        raise ValueError(
            f"Expected argument `{argument}` to be a floating point tensor but got {value.dtype}."
        )


def check_boolean(argument: str, value: Tensor) -> None:
    """Check that a tensor is boolean.

    Args:
        argument: Name of the argument, for the message.
        value: The tensor to check.

    Raises:
        ValueError: If it is not.
    """
    if value.dtype is not torch.bool:
        raise ValueError(
            f"Expected argument `{argument}` to be a boolean tensor but got {value.dtype}."
        )


def check_target(target: Tensor, logits: Tensor, like: str) -> None:
    """Check class indices against the logits that they index.

    Args:
        target: Class indices, expected as an integer tensor [B] in [0, C).
        logits: Logits [B, ..., C].
        like: Name of the argument that holds the logits.

    Raises:
        ValueError: If the shape or the type is wrong, or an index is out of range.
    """
    check_shape("target", target, (logits.shape[0],), like)
    if target.is_floating_point() or target.is_complex() or target.dtype is torch.bool:
        raise ValueError(
            f"Expected argument `target` to be an integer tensor of class indices"
            f" but got {target.dtype}."
        )
    low, high = torch.stack(target.aminmax()).tolist()
    if low < 0 or high >= logits.shape[-1]:
        raise ValueError(
            f"Expected argument `target` to hold class indices from 0 to {logits.shape[-1] - 1}"
            f" but got values from {low} to {high}."
        )
