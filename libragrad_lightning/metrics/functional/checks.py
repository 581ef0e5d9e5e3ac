"""Checks of arguments, shared by the metrics."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def check_integer(argument: str, value: Tensor) -> None:
    """Check that a tensor holds class indices.

    Args:
        argument: Name of the argument, for the message.
        value: The tensor to check.

    Raises:
        ValueError: If the type is not an integer one.
    """
    if value.is_floating_point() or value.is_complex() or value.dtype is torch.bool:
        raise ValueError(
            f"Expected argument `{argument}` to be an integer tensor of class indices"
            f" but got {value.dtype}."
        )


def check_target(target: Tensor, batch: int, classes: int, like: str) -> None:
    """Check class indices against the logits that they index.

    Args:
        target: Class indices, expected as an integer tensor [B] in [0, C).
        batch: Number B of samples.
        classes: Number C of classes.
        like: Name of the argument that holds the logits.

    Raises:
        ValueError: If the shape or the type is wrong, or an index is out of range.
    """
    check_shape("target", target, (batch,), like)
    check_integer("target", target)
    low, high = torch.stack(target.long().aminmax()).tolist()
    if low < 0 or high >= classes:
        raise ValueError(
            f"Expected argument `target` to hold class indices from 0 to {classes - 1}"
            f" but got values from {low} to {high}."
        )


def check_member(argument: str, value: object, allowed: Sequence[str]) -> None:
    """Check that an argument is one of a few names.

    Args:
        argument: Name of the argument, for the message.
        value: Its value.
        allowed: The names.

    Raises:
        ValueError: If it is not.
    """
    if value not in allowed:
        raise ValueError(
            f"Expected argument `{argument}` to be one of {list(allowed)} but got {value!r}."
        )


def check_positive_integer(argument: str, value: object) -> None:
    """Check that an argument is an integer above zero.

    Args:
        argument: Name of the argument, for the message.
        value: Its value.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"Expected argument `{argument}` to be a positive integer but got {value!r}."
        )


def check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    """Check the places along a curve.

    Args:
        fractions: Expected as at least two rising numbers in [0, 1].

    Returns:
        The fractions as a tuple.

    Raises:
        ValueError: If they are something else.
    """
    places = tuple(float(fraction) for fraction in fractions)
    rising = all(low < high for low, high in pairwise(places))
    if len(places) < 2 or not rising or not (places[0] >= 0 and places[-1] <= 1):
        raise ValueError(
            f"Expected argument `fractions` to be two or more rising numbers in [0, 1]"
            f" but got {list(places)}."
        )
    return places
