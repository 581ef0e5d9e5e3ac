"""Finds everything that a forward pass of a model can change, from its modules on.

Functions' globals, classes and Python modules are never entered, nor is what lies beyond the
`Boundary` of the model: what a forward pass does there is not undone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from random import SystemRandom
from types import (
    BuiltinMethodType,
    FunctionType,
    GeneratorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_tables

from libragrad_lightning.models.boundary import Boundary, is_at_work
from libragrad_lightning.models.holders import (
    CELL,
    DICT,
    FUNCTION,
    OBJECT_ARRAY,
    PARTIAL,
    Holder,
    Kind,
    container_kinds,
    slots_kind,
)
from libragrad_lightning.models.iterators import IteratorCopies, is_iterator
from libragrad_lightning.models.values import ARRAYS, STREAMS, is_kept

_MOST = 50_000
"""How many objects are looked at, those near the modules first: a list may hold a data set."""

_PASSED_BY = frozenset(
    {
        *(bool, bytes, complex, float, int, range, slice, str, type(None), type(...)),
        *(torch.Size, torch.device, torch.dtype, nn.Parameter),
    }
)
"""Classes whose instances do not change; weights do, but not in a forward pass."""

_OWNED = frozenset(vars(nn.Module()))
_MEMBERS = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
_FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_HOOK_OPTIONS = (
    *("_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    "_forward_pre_hooks_with_kwargs",
)
_BACKWARD_HOOKS = ("_backward_hooks", "_backward_pre_hooks")

_Visit: TypeAlias = Callable[[Any, bool], None]
"""Visits an object, given whether a function holds it."""


class Reachable:
    """What a forward pass of a model can change, as it was before.

    Args:
        model: The model.

    Attributes:
        holders: Objects that hold others, and what they held.
        empty: Containers of modules and their hooks that held nothing.
        own_tensors: Buffers, and tensors that are attributes of modules.
        others: Tensors and arrays that other objects hold.
        streams: Generators of random numbers.
        iterators: Copies of iterators.
        tables: The attributes and buffers of modules.
        dicts: The dicts that are such attributes.
        backward_hooks: The tables of hooks that modules call in a backward pass.
    """

    def __init__(self, model: nn.Module) -> None:
        self.holders: list[Holder] = []
        self.empty: list[Any] = []
        self.own_tensors: dict[int, Tensor] = {}
        self.others: dict[int, Any] = {}
        self.streams: list[Any] = []
        self.iterators = IteratorCopies()
        self.tables: list[dict[Any, Any]] = []
        self.dicts: list[dict[Any, Any]] = []
        self.backward_hooks: list[dict[Any, Any]] = []
        self._boundary = Boundary(model)
        self._seen: dict[int, Any] = {}
        self._waiting: deque[tuple[Any, bool]] = deque((m, False) for m in model.modules())
        self._visits: dict[type, _Visit] = {}
        self._hooks(vars(global_tables), "_global")
        while self._waiting:
            value, by_function = self._waiting.popleft()
            if id(value) not in self._seen:
                self._visit_of(type(value))(value, by_function)
        self.others = {i: held for i, held in self.others.items() if i not in self.own_tensors}

    def _expect(self, values: Collection[Any], by_function: bool = False) -> None:
        if len(self._seen) + len(self._waiting) + len(values) <= _MOST:
            self._waiting.extend((v, by_function) for v in values if type(v) not in _PASSED_BY)

    def _hold(self, target: Any, kind: Kind) -> list[Any]:
        self._seen[id(target)] = target
        holder = Holder(target, kind)
        self.holders.append(holder)
        return holder.before

    def _visit_of(self, kind: type) -> _Visit:
        if kind not in self._visits:
            found = (visit for base, visit in self._table() if issubclass(kind, base))
            by_kind = self._iterator if is_iterator(kind) else self._object_visit(kind)
            self._visits[kind] = next(found, by_kind)
        return self._visits[kind]

    def _table(self) -> Iterator[tuple[type | tuple[type, ...], _Visit]]:
        yield (type, ModuleType, GeneratorType, SystemRandom, nn.Parameter), lambda *_: None
        yield nn.Module, self._module
        yield Tensor, self._tensor
        yield ARRAYS, self._array
        yield STREAMS, self._stream
        yield FunctionType, self._function
        yield partial, self._partial
        yield (MethodType, BuiltinMethodType, MethodWrapperType), self._method

    def _module(self, module: nn.Module, _: bool) -> None:
        self._seen[id(module)] = module
        attributes = vars(module)
        self._hold(attributes, DICT)
        slots = slots_kind(type(module)) if hasattr(type(module), "__slots__") else None
        if slots is not None:
            self._expect(self._hold(module, slots))
        self._keep_tables(attributes.get(name) for name in _MEMBERS)
        self._hooks(attributes)
        own = {name: value for name, value in attributes.items() if name not in _OWNED}
        buffers = module._buffers.values()
        tensors = [v for v in (*buffers, *own.values()) if isinstance(v, Tensor)]
        self.own_tensors.update((id(tensor), tensor) for tensor in tensors if is_kept(tensor))
        tables = (attributes, attributes.get("_buffers"))
        self.tables += [table for table in tables if isinstance(table, dict)]
        self.dicts += [held for held in own.values() if isinstance(held, dict)]
        self._expect([value for value in own.values() if not isinstance(value, Tensor)])
        self._expect(module._modules.values())

    def _keep_tables(self, tables: Iterable[Any]) -> None:
        """Hold the containers that modules keep for themselves; most of them are empty."""
        for table in tables:
            kinds = container_kinds(type(table)) if table else ()
            for kind in kinds:
                self._hold(table, kind)
            if not kinds and isinstance(table, dict | set):  # those of scripted modules are neither
                self.empty.append(table)

    def _hooks(self, tables: Mapping[str, Any], prefix: str = "") -> None:
        forward = [tables.get(prefix + name) for name in _FORWARD_HOOKS]
        backward = [tables.get(prefix + name) for name in _BACKWARD_HOOKS]
        for hooks in forward:
            if hooks:
                self._expect(hooks.values(), by_function=True)
        options = [tables.get(prefix + name) for name in _HOOK_OPTIONS]
        self._keep_tables([*forward, *options, *backward])
        self.backward_hooks += [hooks for hooks in backward if hooks]

    def _tensor(self, tensor: Tensor, _: bool) -> None:
        if is_kept(tensor):
            self.others[id(tensor)] = tensor

    def _array(self, held: Any, _: bool) -> None:
        if isinstance(held, np.ndarray) and held.dtype == object:
            self._expect(self._hold(held, OBJECT_ARRAY))
        elif not isinstance(held, np.ndarray) or held.flags.writeable:
            self.others[id(held)] = held

    def _stream(self, stream: Any, _: bool) -> None:
        self._seen[id(stream)] = stream
        self.streams.append(stream)

    def _iterator(self, iterator: Any, _: bool) -> None:
        self._seen[id(iterator)] = iterator
        self._expect(self.iterators.add(iterator))

    def _method(self, method: Any, _: bool) -> None:
        self._expect([method.__self__, getattr(method, "__func__", None)], by_function=True)

    def _function(self, function: Any, _: bool) -> None:
        if not self._boundary.owns(function.__module__):
            return
        self._hold(vars(function), DICT)
        self._expect([*vars(function).values(), function.__kwdefaults__])
        self._expect(self._hold(function, FUNCTION), by_function=True)
        for cell in function.__closure__ or ():
            if id(cell) not in self._seen:
                self._expect(self._hold(cell, CELL), by_function=True)

    def _partial(self, held: Any, _: bool) -> None:
        function = getattr(held.func, "__func__", held.func)
        if isinstance(function, FunctionType) and not self._boundary.owns(function.__module__):
            return
        self._hold(held, PARTIAL)
        self._expect([held.func, held.args, held.keywords], by_function=True)

    def _object_visit(self, kind: type) -> _Visit:
        """Return how instances of a class are visited that need no other treatment."""
        contents, slots = container_kinds(kind), slots_kind(kind)
        is_fixed = issubclass(kind, tuple | frozenset)

        def visit(value: Any, by_function: bool) -> None:
            included = self._boundary.includes(kind, by_function)
            attributes = getattr(value, "__dict__", None) if included else None
            if included and is_at_work(attributes or {}):
                return
            if is_fixed:
                self._seen[id(value)] = value
                self._expect(value, by_function)
            for contained in contents:
                self._expect(self._hold(value, contained))
            if included and slots is not None:
                self._expect(self._hold(value, slots))
            if isinstance(attributes, dict):
                self._seen[id(value)] = value
                self._expect(self._hold(attributes, DICT))

        return visit
