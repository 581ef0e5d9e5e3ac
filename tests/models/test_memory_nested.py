"""Whatever is nested in whatever, and however it changes, it is put back."""

import collections
import types

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_objects import Stateful, Tally

from libragrad_lightning.models import explanation_state

LEAVES = st.one_of(
    st.integers(-3, 3),
    st.text(max_size=2),
    st.builds(lambda n: np.zeros(n), st.integers(1, 3)),
    st.builds(lambda n: torch.zeros(n), st.integers(1, 3)),
    st.builds(Tally),
)


def holding(items):
    return st.one_of(
        st.lists(items, max_size=4),
        st.builds(collections.deque, st.lists(items, max_size=4)),
        st.dictionaries(st.integers(0, 5), items, max_size=4),
        st.builds(collections.OrderedDict, st.dictionaries(st.text(max_size=1), items, max_size=4)),
        st.builds(
            lambda d: collections.defaultdict(list, d),
            st.dictionaries(st.integers(), items, max_size=2),
        ),
        st.sets(st.integers(0, 9), max_size=4),
        st.builds(tuple, st.lists(items, max_size=3)),
        st.builds(
            lambda d: types.SimpleNamespace(**d), st.dictionaries(st.sampled_from("abc"), items)
        ),
    )


NESTED = st.recursive(LEAVES, holding, max_leaves=20)


def reachable_things(value, found=None):
    """Return everything inside of a value, itself first, each once."""
    found = {} if found is None else found
    if id(value) not in found:
        found[id(value)] = value
        for item in inside(value):
            reachable_things(item, found)
    return found


def inside(value):
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | collections.deque):
        return list(value)
    return list(vars(value).values()) if isinstance(value, Tally | types.SimpleNamespace) else []


def image_of(value):
    """Return a picture of a value in which every object stands for itself."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return (id(value), value.tolist())
    if isinstance(value, dict):
        return (id(value), [(key, image_of(item)) for key, item in value.items()])
    if isinstance(value, set):
        return (id(value), sorted(value))
    if isinstance(value, Tally | types.SimpleNamespace):
        return (id(value), [(key, image_of(item)) for key, item in vars(value).items()])
    if isinstance(value, list | tuple | collections.deque):
        return (id(value), [image_of(item) for item in value])
    return value


def disturb(value, draw):
    """Change one object in one of the ways in which it can be changed."""
    if isinstance(value, torch.Tensor | np.ndarray):
        value += 1
    elif isinstance(value, Tally | types.SimpleNamespace):
        disturb(vars(value), draw)
    elif isinstance(value, set):
        value.symmetric_difference_update({draw(st.integers(0, 9))})
    elif isinstance(value, dict):
        key = draw(st.sampled_from([*value, "new"]))
        old = value.pop(key, None)
        if draw(st.booleans()):
            value[key] = [old]
    elif isinstance(value, list | collections.deque):
        action = draw(st.sampled_from(["append", "clear", "reverse", "rotate"]))
        if action == "append":
            value.append(object())
        elif action == "rotate" and value:
            value.insert(0, value.pop())
        else:
            getattr(value, "clear" if action == "clear" else "reverse")()


@settings(max_examples=150, deadline=None)
@given(data=st.data(), held=NESTED)
def test_any_change_of_any_structure_is_put_back(data, held):
    def advance(model, x):
        for thing in list(reachable_things(model.held).values()):
            if data.draw(st.booleans()):
                disturb(thing, data.draw)
        if data.draw(st.booleans()):
            model.held = None

    model = Stateful(held, advance, None)
    before = image_of(held)
    with explanation_state(model):
        for _ in range(2):
            model(torch.ones(1, 3))
    assert model.held is held
    assert image_of(held) == before
