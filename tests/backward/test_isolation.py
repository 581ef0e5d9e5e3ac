"""Nothing of a call outlives it, and calls that overlap in time do not meet."""

import gc
import threading
import weakref
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from backward_cases import leaves
from torch import nn

from libragrad_lightning.backward import (
    ATTN_LRP,
    LIBRA,
    PLAIN,
    VOCABULARY,
    MatrixProduct,
    Role,
    RuleSet,
    grad,
)


def network(seed):
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 6), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(6, 3)).double()


def recorded(seed=0):
    (x,) = leaves(seed, (5, 4))
    return x, network(seed)(x).square().sum()


def fail_at(call):
    """Return a function that raises in its n-th call."""
    calls = []

    def maybe_fail(*_):
        calls.append(None)
        if len(calls) == call:
            raise KeyError("planted")

    return maybe_fail


def replaced(name, **changes):
    entry = {name: replace(VOCABULARY[name], **changes)}
    return RuleSet("planted", LIBRA.rules, VOCABULARY.replaced(entry))


@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_sink_that_fails_in_the_middle_leaves_no_hook(call):
    x, y = recorded()
    (ordinary,) = torch.autograd.grad(y, x, retain_graph=True)
    calls = []

    def sink(site, contribution):
        calls.append(site)
        fail(site)

    fail = fail_at(call)
    with pytest.raises(KeyError, match="planted"):
        grad(y, x, on_bias=sink, retain_graph=True)
    assert len(calls) == call
    assert torch.equal(torch.autograd.grad(y, x, retain_graph=True)[0], ordinary)
    assert len(calls) == call
    assert torch.equal(grad(y, x, retain_graph=True)[0], grad(*recorded()[::-1])[0])


def test_reading_a_bias_that_fails_leaves_no_hook_of_the_biases_before_it():
    x, y = recorded()
    (ordinary,) = torch.autograd.grad(y, x, retain_graph=True)
    fail, calls = fail_at(2), []
    entry = MatrixProduct((1, 2), additive=lambda node, c: fail() or c(0))
    rules = RuleSet("planted", {}, VOCABULARY.replaced({"AddmmBackward": entry}))
    with pytest.raises(KeyError, match="planted"):
        grad(y, x, rules=rules, retain_graph=True, on_bias=lambda *_: calls.append(None))
    assert torch.equal(torch.autograd.grad(y, x)[0], ordinary)
    assert not calls


def test_a_rule_that_fails_while_it_reads_or_differentiates_leaves_no_hook():
    def failing(*_):
        raise KeyError("planted")

    for broken in (
        replaced("GeluBackward", gate=failing),
        LIBRA.overridden({Role.NORMALIZATION: failing}, "broken"),
    ):
        x, y = recorded()
        (ordinary,) = torch.autograd.grad(y, x, retain_graph=True)
        with pytest.raises(KeyError, match="planted"):
            grad(y, x, rules=broken, retain_graph=True)
        assert torch.equal(torch.autograd.grad(y, x)[0], ordinary)


def test_a_watch_that_fails_leaves_no_hook():
    x, y = recorded()
    calls = []

    def watch(graph):
        yield graph.nodes[0].node.register_prehook(lambda *_: calls.append(None))
        raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        grad(y, x, watch=[watch], retain_graph=True)
    torch.autograd.grad(y, x)
    assert not calls


def test_hooks_of_the_user_see_the_call_and_outlive_it():
    (x,) = leaves(0, (3, 4))
    h = F.gelu(x)
    seen = []
    h.register_hook(lambda gradient: seen.append(gradient))
    h.grad_fn.register_hook(lambda *_: seen.append(None))
    y = (h * 2).sum()
    grad(y, x, retain_graph=True)
    assert len(seen) == 2
    torch.autograd.grad(y, x)
    assert len(seen) == 4


class Box:
    """Stands in the graph for one saved tensor."""

    def __init__(self, tensor):
        self.tensor = tensor


@pytest.mark.parametrize("fails", [False, True])
def test_the_graph_is_freed_with_its_output(fails):
    boxes = []

    def pack(tensor):
        box = Box(tensor)
        boxes.append(weakref.ref(box))
        return box

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        x, y = recorded()
    sink = fail_at(2 if fails else 100)
    with pytest.raises(KeyError) if fails else nullcontext():
        grad(y, x, retain_graph=True, on_bias=sink)
    assert any(box() is not None for box in boxes)
    del y
    gc.collect()
    assert all(box() is None for box in boxes)


def test_calls_that_overlap_in_time_do_not_meet():
    """Each thread waits at every bias, in the middle of its backward pass, for all others."""
    rule_sets = [LIBRA, PLAIN, ATTN_LRP, LIBRA.without(Role.ACTIVATION)]
    expected = [grad(*recorded(seed)[::-1], rules=r)[0] for seed, r in enumerate(rule_sets)]
    barrier = threading.Barrier(len(rule_sets), timeout=20)
    results = [None] * len(rule_sets)

    graphs = [recorded(seed) for seed in range(len(rule_sets))]

    def explain(seed):
        x, y = graphs[seed]
        meetings = []

        def meet(site, contribution):
            barrier.wait()
            meetings.append(site)

        (gradient,) = grad(y, x, rules=rule_sets[seed], on_bias=meet)
        results[seed] = gradient, len(meetings)

    threads = [threading.Thread(target=explain, args=(i,)) for i in range(len(rule_sets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (gradient, meetings), alone in zip(results, expected, strict=True):
        assert torch.equal(gradient, alone)
        assert meetings == 4  # three linear layers and a norm


def test_a_graph_that_was_not_retained_cannot_be_explained_twice():
    x, y = recorded()
    grad(y, x)
    with pytest.raises(RuntimeError, match="second time"):
        grad(y, x)


def test_explaining_inside_no_grad_changes_nothing():
    x, y = recorded()
    (expected,) = grad(y, x, retain_graph=True)
    with torch.no_grad():
        (gradient,) = grad(y, x, on_bias=lambda *_: None)
    assert torch.equal(gradient, expected)
    assert not gradient.requires_grad
