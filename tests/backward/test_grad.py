"""`grad` as a drop-in for `torch.autograd.grad`: bits, errors, hooks, threads, biases."""

import pickle
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, leaves
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from libragrad_lightning.backward import (
    LIBRA,
    PLAIN,
    RULE_SETS,
    VOCABULARY,
    Activation,
    Linear,
    Power,
    Role,
    UnknownOperationError,
    UnreachableInputError,
    grad,
    rule_set,
)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 3 * ctx.saved_tensors[0] ** 2


@torch.jit.script
def scripted(x):
    return torch.nn.functional.gelu(x) * x


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 3)
    ).double()


@pytest.mark.parametrize("seed", range(4))
def test_plain_gradients_are_those_of_autograd_bit_for_bit(seed):
    (x,) = leaves(seed, (5, 6))
    model = network(seed)
    y = model(x)
    cotangent = torch.randn_like(y)
    expected = torch.autograd.grad(y, [x, model[3].bias], cotangent, retain_graph=True)
    got = grad(y, [x, model[3].bias], cotangent, rules=PLAIN)
    assert all(map(torch.equal, got, expected))


@pytest.mark.parametrize(
    ("forward", "name"),
    [
        (Cube.apply, "CubeBackward"),
        (lambda x: checkpoint(torch.relu, x, use_reentrant=True), "CheckpointFunctionBackward"),
    ],
    ids=["custom-function", "reentrant-checkpoint"],
)
def test_an_operation_without_a_role_is_named(forward, name):
    (x,) = leaves(0, (3, 4))
    y = forward(x).sum()
    with pytest.raises(UnknownOperationError, match=rf"{name} \(1x\).*vocabulary.extended"):
        grad(y, x)


def test_a_scripted_function_is_named():
    (x,) = leaves(0, (3, 4))
    for _ in range(3):  # the profiling executor differentiates as a whole after the first calls
        y = scripted(x).sum()
    with pytest.raises(UnknownOperationError, match="DifferentiableGraphBackward"):
        grad(y, x)


def test_unknown_operations_warn_or_pass_on_request():
    (x,) = leaves(0, (3,))
    expected = 3 * x.detach() ** 2
    with pytest.warns(UserWarning, match="CubeBackward"):
        assert torch.equal(grad(Cube.apply(x).sum(), x, unknown="warn")[0], expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(grad(Cube.apply(x).sum(), x, unknown="ignore")[0], expected)


def test_a_registered_operation_gets_its_rule():
    (x,) = leaves(0, (3,))
    cubed = Power(lambda node: 3.0)
    vocabulary = VOCABULARY.extended({"CubeBackward": cubed})
    rules = type(LIBRA)("mine", LIBRA.rules, vocabulary)
    (gradient,) = grad(Cube.apply(x).sum(), x, rules=rules)
    torch.testing.assert_close((gradient * x).sum(), (x**3).sum())


def test_names_are_added_once_and_replaced_on_purpose():
    with pytest.raises(ValueError, match=r"\['GeluBackward'\] are in the vocabulary"):
        VOCABULARY.extended({"GeluBackward": Linear()})
    with pytest.raises(ValueError, match="use `extended`"):
        VOCABULARY.replaced({"CubeBackward": Linear()})
    replaced = VOCABULARY.replaced({"GeluBackward": Linear()})
    assert replaced["GeluBackward0"].role is Role.LINEAR
    assert VOCABULARY["GeluBackward0"].role is Role.ACTIVATION


@pytest.mark.parametrize("detached", [False, True])
def test_a_tensor_that_the_output_does_not_depend_on_is_refused(detached):
    x, other = leaves(0, (3,), (3,))
    y = (x.detach() if detached else x).exp().sum()
    with pytest.raises(UnreachableInputError, match="do not depend on"):
        grad(y, x if detached else [x, other])


def test_a_retained_graph_gives_the_same_again_and_ordinary_gradients_after():
    (x,) = leaves(1, (5, 6))
    y = network(1)(x).sum()
    ordinary = torch.autograd.grad(y, x, retain_graph=True)[0]
    first, second = (grad(y, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.allclose(first, ordinary)
    assert torch.equal(torch.autograd.grad(y, x)[0], ordinary)


@pytest.mark.parametrize("fault", ["sink", "gate"])
def test_no_hook_survives_an_exception(fault):
    (x,) = leaves(1, (5, 6))
    y = network(1)(x).sum()
    ordinary = torch.autograd.grad(y, x, retain_graph=True)[0]

    def fail(*_):
        raise KeyError("planted")

    if fault == "sink":
        arguments = {"on_bias": fail}
    else:
        broken = VOCABULARY.replaced({"GeluBackward": Activation(fail)})
        arguments = {"rules": type(LIBRA)("broken", LIBRA.rules, broken)}
    with pytest.raises(KeyError, match="planted"):
        grad(y, x, retain_graph=True, **arguments)
    assert torch.equal(torch.autograd.grad(y, x)[0], ordinary)


def test_threads_do_not_see_each_other():
    def explain(rules, seed, results):
        (x,) = leaves(seed, (5, 6))
        y = model(x).sum()
        results[rules.name] = [grad(y, x, rules=rules, retain_graph=True)[0] for _ in range(20)]

    model, alone, together = network(2), {}, {}
    for rules in (LIBRA, PLAIN):
        explain(rules, 3, alone)
    threads = [
        threading.Thread(target=explain, args=(rules, 3, together)) for rules in (LIBRA, PLAIN)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, gradients in together.items():
        assert all(torch.equal(gradient, alone[name][0]) for gradient in gradients)


@FEW
@given(SEEDS, st.integers(1, 3), st.integers(1, 4))
def test_biases_complete_the_sum_at_the_input_and_inside(seed, batch, depth):
    (x,) = leaves(seed, (batch, 4, 6))
    layers = [nn.Linear(6, 6), nn.GELU(), nn.LayerNorm(6), nn.SiLU(), nn.Linear(6, 6, bias=False)]
    model = nn.Sequential(*layers * depth).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)
    inner = model[:3](x)
    y = model[3:](inner).sum()
    for explained in (x, inner):
        sums = []
        (gradient,) = grad(
            y, explained, retain_graph=True, on_bias=lambda _, c, sums=sums: sums.append(c)
        )
        parts = [(gradient * explained).sum(), *[c.sum() for c in sums]]
        scale = sum(part.abs() for part in parts)
        assert (sum(parts) - y).abs() <= 1e-12 * scale


def test_a_bias_that_is_concatenated_from_parameters_and_a_buffer_is_measured():
    x, weight, q, v = leaves(0, (2, 3, 4), (9, 4), (3,), (3,))
    y = F.linear(x, weight, torch.cat([q, torch.zeros(3, dtype=torch.float64), v])).sum()
    found = []
    grad(y, x, on_bias=lambda _, c: found.append(c))
    expected = torch.cat([q, torch.zeros(3, dtype=torch.float64), v]).detach()
    torch.testing.assert_close(found[0], expected.expand(6, 9))


def test_observed_tensors_stay_constants_or_dead():
    x, gate = leaves(0, (3,), (3,))
    weight = (x * gate).sigmoid()
    y = (x * weight).sum()
    alone = grad(y, x, retain_graph=True)[0]
    with_gate, of_gate = grad(y, x, observed=[weight])
    assert torch.equal(alone, with_gate)
    assert not of_gate.any()


def levels_of(x):
    """Return three levels, one of them twice, a part of it, and an output of them all."""
    first = F.gelu(x @ torch.linspace(-1, 1, 16, dtype=x.dtype).view(4, 4))
    second, rest = (first * first.sigmoid()).chunk(2, dim=1)
    y = (second.exp() * rest).sum() + x.sin().sum() + first.sum()
    return y, [x, first, second, first]


@pytest.mark.parametrize("rules", [PLAIN, LIBRA])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_what_is_kept_of_gradients_is_made_of_the_same_gradients(rules, count):
    (x,) = leaves(0, (3, 4))
    y, explained = levels_of(x)
    explained = explained[:count]
    whole = grad(y, explained, rules=rules, retain_graph=True, observed=[x])
    numbers = []

    def keep(number, gradient):
        numbers.append(number)
        return (gradient * explained[number].detach()).sum(1)

    *kept, observed = grad(y, explained, rules=rules, retain_graph=True, observed=[x], keep=keep)
    assert sorted(numbers) == list(range(count))
    for tensor, gradient, product in zip(explained, whole[:-1], kept, strict=True):
        assert torch.equal(product, (gradient * tensor.detach()).sum(1))
    assert torch.equal(observed, whole[-1])
    again = grad(y, explained, rules=rules, observed=[x])
    assert all(map(torch.equal, again, whole))


def test_what_is_kept_of_a_gradient_that_rules_stop_is_made_of_zeros():
    x, v = leaves(0, (2, 3, 4), (2, 3, 4))
    queries = 2 * x
    y = F.scaled_dot_product_attention(queries, v, v).sum()
    whole = grad(y, [x, queries, v], retain_graph=True)
    assert not whole[1].any()
    kept = grad(y, [x, queries, v], keep=lambda _, gradient: gradient.sum(2) + 1)
    assert [torch.equal(k, g.sum(2) + 1) for k, g in zip(kept, whole, strict=True)] == [True] * 3


def test_rule_sets_are_found_by_name_and_can_be_pickled():
    for name, rules in RULE_SETS.items():
        assert rule_set(name) is rules
        assert rule_set(rules) is rules
        assert pickle.loads(pickle.dumps(rules)).rules == rules.rules
    with pytest.raises(ValueError, match="Unknown rule set 'libre'"):
        rule_set("libre")


def test_a_rule_set_can_be_reduced():
    (x,) = leaves(0, (4,))
    y = F.gelu(x)
    reduced = LIBRA.without(Role.ACTIVATION)
    assert reduced.name == "libra_without_activation"
    ordinary = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    assert torch.equal(grad(y.sum(), x, rules=reduced)[0], ordinary)
