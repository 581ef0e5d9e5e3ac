"""What can go wrong while a backward graph is read."""

from __future__ import annotations


class LibraGradError(Exception):
    """Base class of the errors that this package raises about a model or its graph."""


class UnknownOperationError(LibraGradError):
    """The explained tensor flows through an operation for which no role is known."""


class TrainingStatisticsError(LibraGradError):
    """A batch norm normalized samples by statistics that depend on other samples."""


class UnreachableInputError(LibraGradError, ValueError):
    """The output does not depend on a tensor that was to be explained."""


class UnknownConstantError(LibraGradError):
    """A bias is computed from parameters by an operation whose value cannot be found."""
