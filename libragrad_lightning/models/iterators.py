"""Copies iterators, so that a forward pass may advance the copy and leave the original alone."""

from __future__ import annotations

import ast
import itertools
import warnings
from types import BuiltinMethodType, MethodWrapperType
from typing import Any

_MODULES = frozenset({"_collections", "collections", "array", "builtins", "itertools"})
"""Where the iterators of Python's own are defined; that of a deque in either, by release."""


class IteratorCopies:
    """Copies of iterators that share everything but their place; each is made once.

    Copied are the iterators of containers and those of `itertools`, as far as Python can: not
    generators, and from Python 3.14 on only `count` and the iterators of containers.
    """

    def __init__(self) -> None:
        self._found: dict[int, tuple[Any, Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, iterator: Any) -> list[Any]:
        """Copy an iterator, and return what else both change when they are advanced.

        It is nothing for iterators that cannot be copied.
        """
        counted = _copied_count(iterator)
        if counted is not None:
            self._found[id(iterator)] = (iterator, counted)
            return []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated by Python 3.12, removed by 3.14
                make, arguments, *state = iterator.__reduce__()
        except TypeError:
            return []
        parts = _Parts(self)
        copy = make(*parts.copied(arguments))
        if state and isinstance(state[0], tuple):
            copy.__setstate__(parts.copied(state[0]))
        elif state and state[0] is not None:
            copy.__setstate__(*parts.copied(tuple(state[:1])))
        if parts.complete:
            self._found[id(iterator)] = (iterator, copy)
        return parts.others

    def stand_in(self, value: Any) -> Any:
        """Return the copy of an iterator, also of one in a tuple or behind a bound method."""
        if id(value) in self._found:
            return self._found[id(value)][1]
        if type(value) is tuple:
            items = tuple(map(self.stand_in, value))
            return value if all(a is b for a, b in zip(items, value, strict=True)) else items
        if isinstance(value, BuiltinMethodType | MethodWrapperType):
            owner = self.stand_in(value.__self__)
            return value if owner is value.__self__ else getattr(owner, value.__name__)
        return value

    def copy_of(self, iterator: Any) -> tuple[Any, list[Any]]:
        """Return the copy of an iterator, itself if there is none, and what both change."""
        others = [] if id(iterator) in self._found else self.add(iterator)
        return self.stand_in(iterator), others


class _Parts:
    """What one iterator is made of; iterators among it are copied in turn."""

    def __init__(self, copies: IteratorCopies) -> None:
        self._copies = copies
        self.others: list[Any] = []
        self.complete = True

    def copied(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(map(self._copied, values))

    def _copied(self, value: Any) -> Any:
        if not is_iterator(type(value)):
            self.others.append(value)
            return value
        copy, others = self._copies.copy_of(value)
        self.others += others
        self.complete &= copy is not value
        return copy


def is_iterator(kind: type) -> bool:
    """Return whether a class is an iterator of Python itself."""
    return kind.__module__ in _MODULES and hasattr(kind, "__next__")


def _copied_count(iterator: Any) -> itertools.count[Any] | None:
    """Copy a `count` of plain numbers by its text, which works in all versions of Python."""
    if type(iterator) is not itertools.count:
        return None
    try:
        arguments = ast.literal_eval(repr(iterator).removeprefix("count"))
    except (SyntaxError, ValueError):
        return None
    return itertools.count(*(arguments if isinstance(arguments, tuple) else (arguments,)))
