"""Modules that change something in every forward pass, in evaluation too."""

import itertools
import random
import sys
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from types import SimpleNamespace

import numpy as np
import torch
from memory_objects import (
    Counting,
    CountingInOrder,
    Frozen,
    Iterating,
    Pair,
    Record,
    Slotted,
    SlottedModule,
    SlottedToo,
    Tally,
    add_members,
    ahead,
    attributes_case,
    buffer_case,
    buffer_with_graph,
    case,
    counter_in_a_closure,
    counter_in_defaults,
    counter_in_function_attributes,
    exchange_data,
    hidden_norm,
    iterator_in_a_partial,
    knot,
    mapped,
    members,
    of_module,
    resize,
    second_round,
    shared_count,
    unbound_cell,
    zipped,
)


def numbers(generator):
    return generator.get_state().tolist()


CASES = {
    # Random streams.
    "torch.Generator": case(
        lambda: torch.Generator().manual_seed(1), lambda g: torch.rand(2, generator=g), numbers
    ),
    "numpy.Generator": case(
        lambda: np.random.default_rng(1), lambda g: g.random(), lambda g: str(g.bit_generator.state)
    ),
    "numpy.MT19937": case(
        lambda: np.random.MT19937(1), lambda g: g.random_raw(), lambda g: str(g.state)
    ),
    "numpy.RandomState": case(
        lambda: np.random.RandomState(1),
        lambda g: (g.rand(), g.randn()),
        lambda g: repr([str(part) for part in g.get_state()]),
    ),
    "random.Random": case(
        lambda: random.Random(1), lambda g: g.gauss(0, 1), lambda g: g.getstate()
    ),
    "streams in a dict of lists": case(
        lambda: {"a": [random.Random(1)]},
        lambda held: held["a"][0].random(),
        lambda held: held["a"][0].getstate(),
    ),
    # Iterators.
    "count": case(itertools.count, next),
    "count in steps": case(lambda: itertools.count(5, -2), next),
    "iterator of a list": case(lambda: iter([*range(9)]), next, ahead),
    "iterator of a deque": case(lambda: iter(deque(range(9))), next, ahead),
    "iterator of a dict": case(lambda: iter(dict.fromkeys(range(9))), next, ahead),
    "iterator of one's own": case(Iterating, next, lambda i: i.place),
    "count in a nested dict": case(
        lambda: {"a": {"b": [itertools.count()]}}, lambda h: next(h["a"]["b"][0]), repr
    ),
    "count in a tuple": case(lambda: (itertools.count(), 1), lambda h: next(h[0]), repr),
    "count of a defaultdict": case(
        lambda: defaultdict(itertools.count().__next__),
        lambda h: h[len(h)],
        lambda h: (dict(h), repr(h.default_factory.__self__)),
    ),
    "count in a partial": case(
        iterator_in_a_partial, lambda p: p(), lambda p: repr((p.args, p.keywords))
    ),
    "shared count": case(
        shared_count,
        lambda h: (next(h[0]), next(h[1]["again"])),
        lambda h: (repr(h), h[0] is h[1]["again"]),
    ),
    # Containers.
    "list": case(lambda: [3], lambda h: h.append(1)),
    "list that shrinks": case(lambda: [3, 4] * 40, lambda h: h.pop()),
    "dict": case(lambda: {"a": 1}, lambda h: h.update({len(h): 1})),
    "order of a dict": case(
        lambda: {"a": 1, "b": 2, "c": 3}, lambda h: h.update({(k := next(iter(h))): h.pop(k)})
    ),
    "OrderedDict as a cache": case(
        lambda: OrderedDict(a=1, b=2, c=3), lambda h: h.move_to_end(next(iter(h)))
    ),
    "Counter": case(lambda: Counter("aab"), lambda h: h.update("ab")),
    "deque": case(lambda: deque([1, 2], maxlen=2), lambda h: h.append(h[-1] + 1)),
    "set": case(lambda: {1, 2}, lambda h: h.add(len(h) + 1)),
    "UserDict": case(lambda: UserDict(a=1), lambda h: h.update({len(h): 1})),
    "dict that counts": case(
        lambda: Counting(a=1), lambda h: dict.update(h, {len(h): 1}), lambda h: (dict(h), h.writes)
    ),
    "OrderedDict that counts": case(
        lambda: CountingInOrder(a=1, b=2),
        lambda h: OrderedDict.move_to_end(h, next(iter(h))),
        lambda h: (list(h.items()), h.writes),
    ),
    "nested": case(
        lambda: {"a": [{1}, deque([Counter("a")])], "b": (bytearray(b"ab"), {"c": []})},
        lambda h: (
            h["a"][0].add(len(h["a"][0]) + 1),
            h["a"][1][0].update("a"),
            h["b"][0].append(1),
            h["b"][1]["c"].append(1),
        ),
    ),
    "namedtuple": case(lambda: Pair([1], {}), lambda h: h.first.append(1)),
    "object in a set": case(
        lambda: {Tally()}, lambda h: next(iter(h)).add(), lambda h: next(iter(h)).seen[:]
    ),
    "object as a key": case(
        lambda: {Tally(): 1}, lambda h: next(iter(h)).add(), lambda h: next(iter(h)).seen[:]
    ),
    # Objects.
    "plain object": case(Tally, Tally.add, lambda h: (h.count, h.seen[:])),
    "object deep inside": case(
        lambda: SimpleNamespace(a={"b": [SimpleNamespace(c=(Tally(),))]}),
        lambda h: h.a["b"][0].c[0].add(),
        lambda h: h.a["b"][0].c[0].seen[:],
    ),
    "slots": case(Slotted, Slotted.add, Slotted.look),
    "slots and attributes": case(SlottedToo, SlottedToo.add, SlottedToo.look),
    "dataclass": case(
        Record, lambda h: (h.values.update({len(h.values): 1}), setattr(h, "best", h.best + 1))
    ),
    "frozen dataclass": case(Frozen, lambda h: h.values.append(1)),
    "cyclic": case(knot, lambda h: h.me["me"].add(), lambda h: h.seen[:]),
    "bound method": case(lambda: Tally().add, lambda h: h(), lambda h: h.__self__.seen[:]),
    "closure": case(counter_in_a_closure, lambda h: h[0](), lambda h: h[1]()),
    "closure over what comes later": case(unbound_cell, lambda h: h[0](), lambda h: h[1]()),
    "defaults": case(
        counter_in_defaults, lambda h: h(), lambda h: repr((h.__defaults__, h.__kwdefaults__))
    ),
    "attributes of a function": case(
        counter_in_function_attributes, lambda h: h(), lambda h: dict(vars(h))
    ),
    # Arrays and tensors.
    "array": case(lambda: np.zeros(3), lambda h: h.__iadd__(1), lambda h: h.tolist()),
    "array with nan": case(lambda: np.full(3, np.nan), lambda h: h.fill(1), str),
    "array of zeros that change their sign": case(
        lambda: np.zeros(1), lambda h: h.__imul__(-1), str
    ),
    "array of objects": case(
        lambda: np.array([Tally(), None], dtype=object),
        lambda h: (h[0].add(), h.__setitem__(1, 5)),
        lambda h: (h[0].seen[:], h[1]),
    ),
    "tensor": case(
        lambda: torch.zeros(2), lambda h: h.add_(1), lambda h: (h.tolist(), h.requires_grad)
    ),
    "tensor of an object": case(
        lambda: SimpleNamespace(a=[torch.zeros(2)]),
        lambda h: h.a[0].add_(1),
        lambda h: h.a[0].tolist(),
    ),
    "buffer": buffer_case(lambda: torch.zeros(2), lambda b: b.add_(1)),
    "buffer behind autograd's back": buffer_case(lambda: torch.zeros(2), lambda b: b.data.add_(1)),
    "buffer of another shape": buffer_case(lambda: torch.zeros(2), resize),
    "buffer with other data": buffer_case(lambda: torch.zeros(2), exchange_data),
    "expanded buffer": buffer_case(lambda: torch.zeros(2).expand(3, 2), lambda b: b._base.add_(1)),
    "buffer that comes into the graph": buffer_with_graph,
    # Modules.
    "module out of sight": case(
        lambda: [hidden_norm()],
        lambda h: h[0](torch.eye(3)),
        lambda h: h[0].running_mean.tolist(),
    ),
    "slots of a module": SlottedModule,
    "attributes": attributes_case,
    "members": of_module(add_members, members),
}
"""Functions that make a module, by what it changes."""

if sys.version_info < (3, 14):  # later versions cannot copy these iterators
    CASES |= {
        "cycle": case(lambda: itertools.cycle([1, 2, 3]), next, ahead),
        "cycle in its second round": case(second_round, next, ahead),
        "chain": case(lambda: itertools.chain([1, 2], [*range(9)]), next, ahead),
        "enumerate": case(lambda: enumerate([*range(9)]), next, ahead),
        "map over an object": case(mapped, lambda h: next(h[1]), lambda h: h[0].seen[:]),
        "zip over an iterator of one's own": case(
            zipped, lambda h: next(h[1]), lambda h: h[0].place
        ),
    }
