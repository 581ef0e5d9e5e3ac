"""Hooks of others run in an explanation, since some compute weights, and leave no trace of it."""

import functools
import itertools

import lightning.pytorch as pl
import pytest
import torch
from memory_objects import Tally, counter_in_a_closure
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from libragrad_lightning.models import explanation_state

X = torch.randn(2, 3)


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).eval()


def in_a_closure():
    add, count = counter_in_a_closure()
    return lambda *_: [add()][1:] or None, count


def in_a_list():
    seen = []
    return lambda *_: seen.append(1), lambda: list(seen)


def in_a_bound_object():
    tally = Tally()
    return tally.add, lambda: (tally.count, list(tally.seen))


def in_a_callable_object():
    class Hook(Tally):
        def __call__(self, *_):
            self.add()

    hook = Hook()
    return hook, lambda: (hook.count, list(hook.seen))


def in_a_partial():
    tally = Tally()
    return functools.partial(lambda tally, *_: tally.add(), tally), lambda: tally.count


def a_count_in_a_partial():
    hook = functools.partial(lambda counter, *_: [next(counter)][1:] or None, itertools.count())
    return hook, lambda: repr(hook.args)


def in_defaults():
    def hook(module, args, output=None, seen=[], *, more=itertools.count()):  # noqa: B006, B008
        seen.append(next(more))

    return hook, lambda: repr((hook.__defaults__, hook.__kwdefaults__))


def behind_a_decorator():
    tally = Tally()

    @torch.no_grad()
    def hook(*_):
        tally.add()

    return hook, lambda: tally.count


def in_a_callback():
    class Monitor(pl.Callback):
        def __init__(self):
            self.outputs = []

        def watch(self, *_):
            self.outputs.append(1)

    monitor = Monitor()
    return monitor.watch, lambda: list(monitor.outputs)


def in_a_closure_over_a_callback():
    monitor = in_a_callback()[0].__self__
    return lambda *_: monitor.outputs.append(1), lambda: list(monitor.outputs)


HOOKS = [
    in_a_closure,
    in_a_list,
    in_a_bound_object,
    in_a_callable_object,
    in_a_partial,
    a_count_in_a_partial,
    in_defaults,
    behind_a_decorator,
    in_a_callback,
    in_a_closure_over_a_callback,
]


def forward(model, hook):
    return model[1].register_forward_hook(hook)


def forward_pre(model, hook):
    return model[0].register_forward_pre_hook(hook)


def forward_always(model, hook):
    return model.register_forward_hook(hook, always_call=True)


def everywhere(model, hook):
    return register_module_forward_hook(hook)


def before_everything(model, hook):
    return register_module_forward_pre_hook(hook)


@pytest.mark.parametrize(
    "place", [forward, forward_pre, forward_always, everywhere, before_everything]
)
@pytest.mark.parametrize("make", HOOKS)
def test_what_a_hook_changes_is_put_back(make, place):
    model = network()
    hook, look = make()
    handle = place(model, hook)
    try:
        model(X)
        before = look()
        with explanation_state(model):
            model(X)
            assert look() != before or "count" in make.__name__
            model(X)
        assert look() == before
        model(X)
        assert look() != before
    finally:
        handle.remove()


def test_a_hook_that_trains_another_module_leaves_it_as_it_was():
    norm = nn.BatchNorm1d(3)
    model = network()
    model[0].register_forward_hook(lambda *_: [norm(torch.eye(3))][1:] or None)
    with explanation_state(model):
        model(X)
        assert norm.num_batches_tracked == 1
    assert norm.num_batches_tracked == 0
    assert not norm.running_mean.any()


def test_hooks_that_come_and_go_inside_are_as_before():
    model = network()
    handles = []

    def once(*_):
        handles.pop().remove()

    handles.append(model[0].register_forward_hook(once))
    last = model[0].register_forward_hook(lambda *_: None)
    tables = model[0]._forward_hooks
    before = list(tables.items())
    with explanation_state(model):
        model(X)
        model[2].register_forward_pre_hook(once)
        assert len(tables) == 1
    assert model[0]._forward_hooks is tables
    assert list(tables.items()) == before
    assert not model[2]._forward_pre_hooks
    assert len(handles) == 1
    model(X)
    assert list(tables) == [last.id]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "make",
    [
        weight_norm,
        spectral_norm,
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    ],
)
def test_hooks_that_compute_weights_are_called(make):
    model = network()
    make(model[0])
    with torch.no_grad():
        model.train()(X)  # a power iteration
        model.eval()
        for parameter in model.parameters():
            parameter.mul_(2)
        expected = model(X)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with explanation_state(model):
        assert torch.equal(model(X).detach(), expected)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(model(X), expected)
