"""Whatever a forward pass changes in a model, an explanation leaves it as it was."""

import threading

import pytest
import torch
from memory_cases import CASES
from memory_objects import Stateful, Tally

from libragrad_lightning.models import explanation_state

X = torch.randn(2, 3)


def build(name):
    torch.manual_seed(0)
    return CASES[name]().eval()


def parts(model):
    """Every object that can be met in the attributes of a module, by its path."""
    found, stack = {}, [("", model.held)]
    while stack:
        path, value = stack.pop()
        found[path] = value
        inner = vars(value) if hasattr(value, "__dict__") and len(path) < 60 else {}
        inner = inner if not isinstance(value, type) else {}
        stack += [(f"{path}.{name}", item) for name, item in inner.items()]
        if isinstance(value, dict):
            stack += [(f"{path}[{key!r}]", item) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            stack += [(f"{path}[{i}]", item) for i, item in enumerate(value)]
    return found


def assert_same_parts(before, after):
    assert before.keys() == after.keys()
    assert all(before[path] is after[path] for path in before)


@pytest.mark.parametrize("name", CASES)
def test_a_forward_pass_without_explanation_state_advances(name):
    model = build(name)
    before = model.look(model)
    model(X)
    assert model.look(model) != before


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_forward_pass_inside_leaves_no_trace(name, fails):
    model = build(name)
    before, objects = model.look(model), parts(model)
    try:
        with explanation_state(model):
            model(X)
            inside = model.look(model)
            model(X)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert inside != before or "iterator" in name or "count" in name
    assert model.look(model) == before
    assert_same_parts(objects, parts(model))


@pytest.mark.parametrize("name", CASES)
def test_training_goes_on_as_if_nothing_had_been_explained(name):
    disturbed, undisturbed = build(name), build(name)
    for model in (disturbed, undisturbed):
        model(X)
    with explanation_state(disturbed):
        for _ in range(3):
            disturbed(X)
    for model in (disturbed, undisturbed):
        model(X)
    assert disturbed.look(disturbed) == undisturbed.look(undisturbed)


@pytest.mark.parametrize("name", CASES)
def test_every_context_puts_back_what_it_found(name):
    model = build(name)
    before = model.look(model)
    with explanation_state(model):
        model(X)
        between = model.look(model)
        with explanation_state(model):
            model(X)
        assert model.look(model) == between
    assert model.look(model) == before


def test_two_threads_that_explain_leave_no_trace():
    tally = Tally()
    models = [Stateful(tally, lambda m, _: m.held.add(), None) for _ in range(2)]
    errors = []

    def explain(model):
        try:
            for _ in range(20):
                with explanation_state(model):
                    assert tally.count == 0
                    model(X)
                    assert tally.count == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=explain, args=(model,)) for model in (*models, models[0])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (tally.count, tally.seen) == (0, [])
