"""What can go wrong while a backward graph is read."""

from __future__ import annotations


class LibraGradError(Exception):
    """Base class of the errors that this package raises about a model or its graph."""


class UnknownOperationError(LibraGradError):
    """The explained tensor flows through an operation for which no role is known."""


class UnreachableInputError(LibraGradError, ValueError):
    """The output does not depend on a tensor that was to be explained."""
