"""Operations without a role: named where a gradient meets them, and given one by the user."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from backward_cases import BiasRecord, fullgrad_sum, leaves
from torch import nn
from torch.utils.checkpoint import checkpoint

from libragrad_lightning.backward import (
    ATTN_LRP,
    LIBRA,
    PLAIN,
    RULE_SETS,
    VOCABULARY,
    Activation,
    ConstantObserver,
    Product,
    RuleSet,
    UnknownOperationError,
    grad,
)
from libragrad_lightning.backward.graph import annotate_graph


class Weighted(torch.autograd.Function):
    """x * weight * sigmoid(x), with constants beside the input."""

    @staticmethod
    def forward(ctx, weight, x, power):
        ctx.save_for_backward(weight, x)
        return x * weight * x.sigmoid()

    @staticmethod
    def backward(ctx, gradient):
        weight, x = ctx.saved_tensors
        gate = x.sigmoid()
        return gradient * x * gate, gradient * weight * gate * (1 + x * (1 - gate)), None


class Linear(torch.autograd.Function):
    """A linear layer as a fused kernel may define it."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return x @ weight.T + bias

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient @ weight, gradient.T @ x, gradient.sum(0)


def with_roles(**operations):
    table = {f"{name}Backward": operation for name, operation in operations.items()}
    return replace(LIBRA, name="mine", vocabulary=VOCABULARY.extended(table))


def test_a_custom_activation_with_constants_beside_its_input():
    x, weight = leaves(0, (3, 4), (4,))
    y = Weighted.apply(weight.expand(3, 4), x, 2)
    gate = Activation(lambda node: node.saved_tensors[0] * node.saved_tensors[1].sigmoid())
    (gradient,) = grad(y.sum(), x, rules=with_roles(Weighted=gate))
    torch.testing.assert_close(gradient, (weight * x.sigmoid()).detach(), rtol=1e-12, atol=0)


def test_a_custom_linear_layer_is_a_product_with_an_addend():
    x, weight, bias = leaves(0, (3, 4), (5, 4), (5,))
    operation = Product((0, 1), additive=lambda node, constant_of: constant_of(2))
    rules = with_roles(Linear=operation)
    total, magnitude = fullgrad_sum(
        output := F.gelu(Linear.apply(x, weight, bias)).sum(), [x], rules
    )
    assert abs(total - output.detach()) <= 1e-13 * magnitude


def test_a_compiled_region_is_named_and_an_eager_one_is_read():
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)).double()
    (x,) = leaves(0, (3, 4))
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager")
    with pytest.raises(UnknownOperationError, match=r"CompiledFunctionBackward \(1x\)"):
        grad(compiled(x).sum(), x)
    with torch.compiler.set_stance("force_eager"):
        (expected,), (gradient,) = (grad(m(x).sum(), x) for m in (model, compiled))
    assert torch.equal(gradient, expected)
    captured = torch.compile(copy.deepcopy(model), backend="eager")
    assert torch.equal(grad(captured(x).sum(), x)[0], expected)


def test_a_reentrant_checkpoint_is_named_and_another_is_read():
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU()).double()
    (x,) = leaves(0, (3, 4))
    with pytest.raises(UnknownOperationError, match=r"CheckpointFunctionBackward \(1x\)"):
        grad(checkpoint(model, x, use_reentrant=True).sum(), x)
    gradients = grad(checkpoint(model, x, use_reentrant=False).sum(), x, rules=PLAIN)
    assert torch.equal(*gradients, *torch.autograd.grad(model(x).sum(), x))


IN_PLACE = [F.hardswish, F.silu, F.relu6, F.mish, F.elu, F.hardtanh]


@pytest.mark.parametrize("activation", IN_PLACE)
def test_an_activation_in_place_on_a_view_is_refused_with_a_remedy(activation):
    layer = nn.Linear(4, 4).double()
    (x,) = leaves(0, (2, 3, 4))
    with ConstantObserver():
        value = activation(layer(x)[:, :2], inplace=True)
    with pytest.raises(UnknownOperationError, match=r"CopySlices \(1x\).*inplace=False"):
        grad(value.sum(), x)


def test_an_unknown_operation_where_gradients_stop_needs_no_role():
    x, weight = leaves(0, (2, 5, 4), (4,))

    def attend(score):
        q = score(x) * weight
        return (F.scaled_dot_product_attention(q, q, x) + x * score(x).sigmoid()).square().sum()

    unknown = attend(torch.erfinv)
    (gradient,) = grad(unknown, x, retain_graph=True)
    held = x.detach().erfinv()
    reference = F.scaled_dot_product_attention(held * weight, held * weight, x) + x * held.sigmoid()
    expected = torch.autograd.grad(reference.square().sum(), x)[0] / 2
    torch.testing.assert_close(gradient, expected, equal_nan=True)
    graph = annotate_graph([unknown], [x], LIBRA)
    assert not graph.unknown()
    behind = [r for r in graph.nodes if r.operation is None]
    assert {r.node.name() for r in behind} == {"ErfinvBackward0"}
    assert not any(graph.receives(r) for r in behind)
    for rules in (PLAIN, ATTN_LRP):
        with pytest.raises(UnknownOperationError, match=r"ErfinvBackward0"):
            grad(unknown, x, rules=rules, retain_graph=True)


def test_an_unknown_function_of_a_held_value_that_is_added_is_named():
    (x,) = leaves(0, (3, 4))
    output = (x + x.sigmoid().erfinv()).sum()
    with pytest.raises(UnknownOperationError, match="ErfinvBackward0"):
        grad(output, x, on_bias=BiasRecord())


def test_rule_sets_can_be_hashed():
    assert len({*RULE_SETS.values()}) == len(RULE_SETS)
    table = {rules: name for name, rules in RULE_SETS.items()}
    assert table[LIBRA] == "libra"
    assert hash(LIBRA) == hash(RuleSet("libra", LIBRA.rules))
    assert RuleSet("libra", LIBRA.rules) == LIBRA
    assert RuleSet("libra") != LIBRA
