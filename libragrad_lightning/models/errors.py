"""What can go wrong while a model is read."""

from __future__ import annotations

from libragrad_lightning.backward import LibraGradError


class UnreadableModelError(LibraGradError):
    """The model has no tokens that this version can read, or its output is not `[B, C]`."""


class WeightsTooLargeError(UnreadableModelError, MemoryError):
    """There is no room for weights that are to be gathered from other processes."""
