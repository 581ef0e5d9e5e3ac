"""Reads what objects hold, and writes it back into the same objects."""

from __future__ import annotations

import operator
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MemberDescriptorType
from typing import Any

_EMPTY = object()
"""Stands for a slot without a value."""


@dataclass(frozen=True)
class Kind:
    """How the contents of one kind of object are read and written.

    Methods that a subclass overrides are passed by: a container that counts what is put into it
    must not count us.

    Attributes:
        read: Returns everything that an object holds, in order.
        write: Makes an object hold what was read, and nothing else.
    """

    read: Callable[[Any], list[Any]]
    write: Callable[[Any, list[Any]], None]


class Holder:
    """An object, and what it held when it was met.

    Args:
        target: The object.
        kind: How it is read and written.
    """

    __slots__ = ("before", "kind", "target")

    def __init__(self, target: Any, kind: Kind) -> None:
        self.target, self.kind = target, kind
        self.before = kind.read(target)

    def exchange(self, stand_in: Callable[[Any], Any]) -> None:
        """Let the object hold other things until it is restored."""
        after = [stand_in(value) for value in self.before]
        if not same_objects(after, self.before):
            self.kind.write(self.target, after)

    def restore(self) -> None:
        """Let the object hold again what it held; it is not touched if it still does."""
        if not same_objects(self.kind.read(self.target), self.before):
            self.kind.write(self.target, self.before)


def same_objects(first: list[Any], second: list[Any]) -> bool:
    """Return whether two lists hold the same objects, whatever these think of equality."""
    return len(first) == len(second) and all(map(operator.is_, first, second))


def _halves(entries: list[Any]) -> Iterable[tuple[Any, Any]]:
    middle = len(entries) // 2
    return zip(entries[:middle], entries[middle:], strict=True)


def _read_dict(held: dict[Any, Any]) -> list[Any]:
    return [*dict.keys(held), *dict.values(held)]


def _write_dict(held: dict[Any, Any], entries: list[Any]) -> None:
    # Others may look up attributes in this dict meanwhile, so it is emptied only if it must be.
    kept = dict(_halves(entries))
    for key in [key for key in dict.keys(held) if key not in kept]:
        dict.__delitem__(held, key)
    dict.update(held, kept)
    if not same_objects(_read_dict(held), entries):
        dict.clear(held)
        dict.update(held, kept)


def _read_ordered(held: OrderedDict[Any, Any]) -> list[Any]:
    keys = list(OrderedDict.__iter__(held))
    return keys + [dict.__getitem__(held, key) for key in keys]


def _write_ordered(held: OrderedDict[Any, Any], entries: list[Any]) -> None:
    OrderedDict.clear(held)
    for key, value in _halves(entries):
        OrderedDict.__setitem__(held, key, value)


def _write_list(held: list[Any], items: list[Any]) -> None:
    list.__setitem__(held, slice(None), items)


def _write_deque(held: deque[Any], items: list[Any]) -> None:
    deque.clear(held)
    deque.extend(held, items)


def _write_set(held: set[Any], items: list[Any]) -> None:
    set.clear(held)
    set.update(held, items)


def _read_cell(cell: Any) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _write_cell(cell: Any, contents: list[Any]) -> None:
    if contents:
        cell.cell_contents = contents[0]
    else:
        del cell.cell_contents


def _write_function(function: Any, defaults: list[Any]) -> None:
    function.__defaults__, function.__kwdefaults__ = defaults


def _write_partial(held: Any, parts: list[Any]) -> None:
    held.__setstate__((*parts, vars(held)))


def _write_factory(held: defaultdict[Any, Any], factory: list[Any]) -> None:
    held.default_factory = factory[0]


def _write_objects(array: Any, items: list[Any]) -> None:
    for i, item in enumerate(items):
        array.flat[i] = item


DICT = Kind(_read_dict, _write_dict)
ORDERED = Kind(_read_ordered, _write_ordered)
CELL = Kind(_read_cell, _write_cell)
FUNCTION = Kind(lambda f: [f.__defaults__, f.__kwdefaults__], _write_function)
PARTIAL = Kind(lambda p: [p.func, p.args, p.keywords], _write_partial)
FACTORY = Kind(lambda d: [d.default_factory], _write_factory)
OBJECT_ARRAY = Kind(lambda array: list(array.flat), _write_objects)

_CONTAINERS: dict[type, tuple[Kind, ...]] = {
    OrderedDict: (ORDERED,),
    defaultdict: (DICT, FACTORY),
    dict: (DICT,),
    list: (Kind(list.copy, _write_list),),
    deque: (Kind(lambda held: list(deque.__iter__(held)), _write_deque),),
    set: (Kind(lambda held: list(set.__iter__(held)), _write_set),),
}


def container_kinds(kind: type) -> tuple[Kind, ...]:
    """Return how the contents of a container are read and written; nothing for other classes."""
    if kind in _CONTAINERS:
        return _CONTAINERS[kind]
    return next((kinds for base, kinds in _CONTAINERS.items() if issubclass(kind, base)), ())


def slots_kind(kind: type) -> Kind | None:
    """Return how the slots of a class are read and written, None if it has none."""
    members = [
        member
        for base in kind.__mro__
        if "__slots__" in vars(base)
        for member in vars(base).values()
        if isinstance(member, MemberDescriptorType)
    ]

    def read(held: Any) -> list[Any]:
        return [_slot(member, held) for member in members]

    def write(held: Any, values: list[Any]) -> None:
        for member, value in zip(members, values, strict=True):
            if value is not _EMPTY:
                member.__set__(held, value)
            elif _slot(member, held) is not _EMPTY:
                member.__delete__(held)

    return Kind(read, write) if members else None


def _slot(member: MemberDescriptorType, held: Any) -> Any:
    try:
        return member.__get__(held, type(held))
    except AttributeError:
        return _EMPTY
