"""Nested arguments, outputs and batches: their leaves, by the way to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

from torch import Tensor

Way: TypeAlias = tuple[str | int, ...]
"""Keys, names of fields and positions that lead from a nested object to one of its leaves."""

_DEEPEST = 8


def leaves(tree: Any, way: Way = ()) -> Iterator[tuple[Way, Any]]:
    """Yield every leaf of mappings, sequences, named tuples, dataclasses and plain holders.

    Args:
        tree: The nested object.
        way: The way to it, which all others begin with.
    """
    children = None if len(way) > _DEEPEST else _children(tree)
    if children is None:
        yield way, tree
        return
    for key, child in children:
        yield from leaves(child, (*way, key))


def tensors(tree: Any) -> list[tuple[Way, Tensor]]:
    """Return the tensors of a nested object."""
    return [(way, leaf) for way, leaf in leaves(tree) if isinstance(leaf, Tensor)]


def at(tree: Any, way: Way) -> Any:
    """Return what a way leads to.

    Raises:
        KeyError: If it leads nowhere.
    """
    for key in way:
        children = dict(_children(tree) or ())
        if key not in children:
            raise KeyError(way)
        tree = children[key]
    return tree


def mapped(tree: Any, change: Callable[[Way, Any], Any], way: Way = ()) -> Any:
    """Return a nested object with other leaves, its containers of the same kinds as before."""
    children = None if len(way) > _DEEPEST else _children(tree)
    if children is None:
        return change(way, tree)
    changed = {key: mapped(child, change, (*way, key)) for key, child in children}
    if all(changed[key] is child for key, child in children):
        return tree
    return _rebuilt(tree, changed)


def copied(tree: Any) -> Any:
    """Return a nested object with copies of its tensors."""
    return mapped(tree, lambda _, t: t.detach().clone() if isinstance(t, Tensor) else t)


def described(tree: Any) -> str:
    """Return in a few words what a batch, an output or an argument is."""
    if isinstance(tree, Tensor):
        return f"{str(tree.dtype).removeprefix('torch.')} {tuple(tree.shape)}"
    children = _children(tree)
    if children is None:
        return type(tree).__name__
    if isinstance(tree, Sequence) and not _is_named(tree):
        return f"a {type(tree).__name__} of " + ", ".join(described(c) for _, c in children)
    kind = "a mapping" if isinstance(tree, Mapping) else f"a {type(tree).__name__}"
    return f"{kind} with " + ", ".join(f"{key}: {described(c)}" for key, c in children)


def _children(tree: Any) -> Sequence[tuple[str | int, Any]] | None:
    if isinstance(tree, Mapping):
        return [(key if isinstance(key, str | int) else str(key), v) for key, v in tree.items()]
    if _is_named(tree):
        return list(zip(tree._fields, tree, strict=True))
    if isinstance(tree, list | tuple):
        return list(enumerate(tree))
    if is_dataclass(tree) and not isinstance(tree, type):
        return [(f.name, getattr(tree, f.name)) for f in fields(tree) if hasattr(tree, f.name)]
    if _holds_tensors(tree):
        return [(name, value) for name, value in vars(tree).items() if not name.startswith("_")]
    return None


def _is_named(tree: Any) -> bool:
    return isinstance(tree, tuple) and hasattr(tree, "_fields")


def _holds_tensors(tree: Any) -> bool:
    """Whether an object is a plain holder of tensors, such as a user's own class of batches."""
    if isinstance(tree, Tensor | type) or not hasattr(tree, "__dict__") or callable(tree):
        return False
    return any(isinstance(value, Tensor) for value in vars(tree).values())


def _rebuilt(tree: Any, changed: Mapping[str | int, Any]) -> Any:
    if isinstance(tree, Mapping):
        make = getattr(tree, "copy", None)
        rebuilt: Any = dict(tree) if make is None else make()
        for key in tree:
            rebuilt[key] = changed[key if isinstance(key, str | int) else str(key)]
        return rebuilt
    if _is_named(tree):
        return type(tree)(*changed.values())
    if isinstance(tree, list | tuple):
        return type(tree)(changed.values())
    rebuilt = copy(tree)
    for key, value in changed.items():
        object.__setattr__(rebuilt, str(key), value)  # also where a dataclass is frozen
    return rebuilt
