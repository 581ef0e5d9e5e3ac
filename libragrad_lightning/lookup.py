"""Looks up what settings name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

_Entry = TypeVar("_Entry")


def named(table: Mapping[str, _Entry], name: str, argument: str, kind: str = "") -> _Entry:
    """Return the entry of a table.

    Args:
        table: What can be named.
        name: The name that was given.
        argument: The argument that it was given as.
        kind: What is named, in words; by default the name of the argument.

    Raises:
        ValueError: If there is no entry of that name.
    """
    if name not in table:
        raise ValueError(
            f"Unknown {kind or argument} {name!r}; `{argument}` takes one of {sorted(table)}."
        )
    return table[name]
