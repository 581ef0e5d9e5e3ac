"""Tells a model that refuses its input from a device that has no memory left.

Both end a forward pass with a `RuntimeError`. The first is an answer about the model; the second is
none, and whoever called may try again with fewer images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

REFUSALS = (RuntimeError, ValueError, AssertionError, IndexError)
"""What models raise at inputs that they do not take."""

_SIGNS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
"""What backends and libraries that raise a plain `RuntimeError` say, in lower case."""


def unless_refused(call: Callable[[], T]) -> T | None:
    """Return what a call returns, or None if the model refuses its input.

    Raises:
        RuntimeError: If there is no memory left, as it came; in torch itself an `OutOfMemoryError`.
    """
    try:
        return call()
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        return None


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or what it was raised from, says that there is no memory left."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        said = str(error).lower()
        if isinstance(error, RuntimeError) and any(sign in said for sign in _SIGNS):
            return True
        error = error.__cause__
    return False
