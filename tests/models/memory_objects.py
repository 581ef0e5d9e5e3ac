"""Modules and objects that can be changed in a forward pass."""

import copy
import functools
import itertools
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field

import torch
from torch import nn


class Stateful(nn.Module):
    """Changes what it holds in every forward pass.

    Args:
        held: What it holds.
        advance: Changes that, given the module and its input.
        look: Returns what there is to be seen of it.
    """

    def __init__(self, held, advance, look):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.held = held
        self.__dict__["advance"], self.__dict__["look"] = advance, look

    def forward(self, x):
        self.advance(self, x)
        return self.linear(x)


class Tally:
    """A plain object that counts."""

    def __init__(self):
        self.count = 0
        self.seen = []

    def add(self, *_):
        self.count += 1
        self.seen.append(self.count)


class Slotted:
    __slots__ = ("__hidden", "count", "late")

    def __init__(self):
        self.count = self.__hidden = 0

    def add(self):
        self.count += 1
        self.__hidden += 1
        self.late = self.count

    def look(self):
        return self.count, self.__hidden, getattr(self, "late", None)


class SlottedToo(Slotted):
    """Has slots and attributes."""

    def add(self):
        super().add()
        self.attribute = self.count

    def look(self):
        return super().look(), vars(self).copy()


@dataclass
class Record:
    values: dict = field(default_factory=dict)
    best: float = 0.0


@dataclass(frozen=True)
class Frozen:
    values: list = field(default_factory=list)


class Counting(dict):
    """Counts what is written to it, also by those who put things back."""

    writes = 0

    def __setitem__(self, key, value):
        type(self).writes += 1
        super().__setitem__(key, value)


class CountingInOrder(OrderedDict):
    writes = 0

    def __setitem__(self, key, value):
        type(self).writes += 1
        super().__setitem__(key, value)


class Iterating:
    """An iterator of one's own."""

    def __init__(self):
        self.place = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.place += 1
        return self.place


Pair = namedtuple("Pair", "first second")


def counter_in_a_closure():
    count = 0

    def add():
        nonlocal count
        count += 1
        return count

    return add, lambda: count


def counter_in_defaults():
    def add(seen=[], *, more={}):  # noqa: B006
        seen.append(1)
        more[len(seen)] = 1

    return add


def counter_in_function_attributes():
    def add():
        add.calls = getattr(add, "calls", 0) + 1

    return add


def unbound_cell():
    if False:
        late = None

    def add():
        nonlocal late
        late = 1

    def look():
        try:
            return late
        except NameError:
            return "unbound"

    return add, look


def iterator_in_a_partial():
    return functools.partial(
        lambda counter, *, more: (next(counter), more.append(1)), itertools.count(), more=[]
    )


def ahead(iterator):
    """Return what comes next, without advancing the iterator."""
    return list(itertools.islice(copy.deepcopy(iterator), 12))


def second_round():
    cycle = itertools.cycle([1, 2])
    assert [next(cycle) for _ in range(3)] == [1, 2, 1]
    return cycle


def mapped():
    tally = Tally()
    return tally, map(tally.add, range(9))


def zipped():
    own = Iterating()
    return own, zip(own, range(9), strict=False)


def shared_count():
    count = itertools.count()
    return [count, {"again": count}]


def knot():
    tally = Tally()
    tally.me = {"me": tally}
    return tally


def hidden_norm():
    return nn.BatchNorm1d(3).train()


def resize(held):
    held.resize_(6).fill_(5)


def exchange_data(held):
    held.data = held.data.double() + 1


def drop_first(held):
    held.pop(next(iter(held)))


def case(make, advance, look=repr):
    """Make a module; `advance` and `look` are given what it holds."""

    def build():
        held = make()
        return Stateful(held, lambda m, x: advance(m.held), lambda m: look(m.held))

    return build


def buffer_case(value, advance):
    def build():
        model = Stateful(None, lambda m, x: advance(m.buffer), lambda m: buffer_look(m))
        model.register_buffer("buffer", value())
        return model

    return build


def buffer_look(model):
    b = model.buffer
    return b.tolist(), b.requires_grad, b.is_leaf, tuple(b.shape), b.dtype


def write_with_graph(model, x):
    model.buffer += model.linear(x).mean()


def buffer_with_graph():
    model = Stateful(None, write_with_graph, buffer_look)
    model.register_buffer("buffer", torch.zeros(2))
    return model


def of_module(advance, look, held=None):
    return lambda: Stateful(None if held is None else held(), advance, look)


def add_attribute(model, x):
    model.created = x
    if "removable" in vars(model):
        del model.removable


def attributes_case():
    model = of_module(add_attribute, lambda m: sorted(vars(m)))()
    model.removable = 1
    return model


class SlottedModule(nn.Module):
    __slots__ = ("calls",)

    def __init__(self):
        super().__init__()
        self.held, self.calls = None, []

    def forward(self, x):
        self.calls = [*self.calls, 1]
        self.calls.append(2)

    def look(self, _):
        return list(self.calls)


def add_members(model, x):
    if not hasattr(model, "more"):
        model.more = nn.Linear(3, 3)
        model.register_buffer("late", torch.ones(1), persistent=False)
        model.register_parameter("weight", nn.Parameter(torch.ones(1)))
        model.register_forward_hook(lambda *_: None, always_call=True)


def members(model):
    return (
        sorted(name for name, _ in model.named_modules()),
        sorted(name for name, _ in model.named_parameters()),
        sorted(name for name, _ in model.named_buffers()),
        sorted(model.state_dict()),
        sorted(model._non_persistent_buffers_set),
        len(model._forward_hooks),
        len(model._forward_hooks_always_called),
    )
