"""Arguments of the audit that cannot work end in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from libragrad_lightning.audit.errors import AuditError

T = TypeVar("T")


def at_least(least: int, value: int, argument: str) -> int:
    """Return the value.

    Raises:
        AuditError: If it is smaller than it may be.
    """
    if value < least:
        raise AuditError(f"LibraGradAudit needs `{argument}` of at least {least} but got {value}.")
    return value


def grouped(kind: type[T], value: Any, argument: str) -> T:
    """Return a group of arguments, given as an object or as a mapping.

    Raises:
        AuditError: If it is something else, or has an argument that the group has not.
    """
    if isinstance(value, kind):
        return value
    if isinstance(value, Mapping):
        known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
        strange = sorted(set(value) - set(known))
        if not strange:
            return kind(**value)
        raise AuditError(f"LibraGradAudit has no {strange} in `{argument}`; it takes {known}.")
    raise AuditError(
        f"LibraGradAudit needs `{argument}` to be a `{kind.__name__}(...)` of "
        f"`libragrad_lightning.callbacks` but got {value!r}."
    )


def one_of(names: Sequence[str], value: str, argument: str) -> str:
    """Return the value.

    Raises:
        AuditError: If it is none of the names.
    """
    if value not in names:
        raise AuditError(
            f"LibraGradAudit does not know {value!r}; `{argument}` takes one of {list(names)}."
        )
    return value
