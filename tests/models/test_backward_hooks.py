"""Backward hooks of modules are not called in an explanation, and known if they are met."""

import pytest
import timm
import torch
import torch.nn.functional as F
from situation_cases import Trained, images, vit
from torch import nn
from torch.nn.modules.module import register_module_full_backward_hook

from libragrad_lightning.backward import RULE_SETS, grad
from libragrad_lightning.models import explanation_state, read_token_model

X = torch.randn(2, 3)


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).eval()


def full(module, hook):
    return module.register_full_backward_hook(hook)


def full_pre(module, hook):
    return module.register_full_backward_pre_hook(lambda m, outgoing: hook(m, None, outgoing))


def old(module, hook):
    return module.register_backward_hook(hook)


BACKWARD = [full, full_pre, old]
FIRED = []
"""A global, which is not put back."""


def tables_of(model):
    found = [(m._backward_hooks, m._backward_pre_hooks) for m in model.modules()]
    return [table for pair in found for table in pair]


def double(module, incoming, outgoing):
    FIRED.append(module)
    return None if incoming is None else tuple(i if i is None else 2 * i for i in incoming)


@pytest.mark.parametrize("register", BACKWARD)
@pytest.mark.parametrize("fails", [False, True])
def test_backward_hooks_do_not_fire_and_leave_no_node(register, fails):
    FIRED.clear()
    plain, hooked = vit(), vit()
    for block in hooked.blocks:
        register(block.mlp, double)
        register(block.mlp, lambda *_: None)
    tables = tables_of(hooked)
    entries = [list(table.items()) for table in tables]
    pixels = images()
    try:
        with explanation_state(hooked):
            found = explain(hooked, pixels)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    with explanation_state(plain):
        expected = explain(plain, pixels)
    assert torch.equal(found, expected)
    assert FIRED == []
    assert all(a is b for a, b in zip(tables, tables_of(hooked), strict=True))
    assert [list(table.items()) for table in tables_of(hooked)] == entries
    hooked(pixels.requires_grad_()).sum().backward()
    assert set(FIRED) == {block.mlp for block in hooked.blocks}


def explain(model, pixels):
    read_token_model(model, pixels)
    x = pixels.clone().requires_grad_()
    return grad(model(x)[:, 0].sum(), x)[0]


def test_backward_hooks_of_all_modules_do_not_fire():
    FIRED.clear()
    model = network()
    handle = register_module_full_backward_hook(lambda *_: FIRED.append(1))
    try:
        with explanation_state(model):
            x = X.clone().requires_grad_()
            grad(model(x).sum(), x)
        assert FIRED == []
        model(X.clone().requires_grad_()).sum().backward()
        assert len(FIRED) == 4
    finally:
        handle.remove()


def test_a_hook_that_is_registered_inside_is_gone_afterwards():
    model = network()
    model[0].register_full_backward_pre_hook(lambda *_: None)
    before = vars(model[0]).copy()
    with explanation_state(model):
        model[0].register_full_backward_hook(lambda *_: None)
        model[0].register_full_backward_pre_hook(lambda *_: None)
    assert vars(model[0]) == before
    assert not model[0]._backward_hooks
    assert len(model[0]._backward_pre_hooks) == 1


class Joined(nn.Module):
    """A module whose operands are the input, parameters and what depends on both."""

    def forward(self, constant, x, gate):
        return (x + F.gelu(constant)) * gate + constant


class Joining(nn.Module):
    def __init__(self):
        super().__init__()
        self.joined = Joined()
        self.bias = nn.Parameter(torch.randn(3).double())
        self.norm = nn.LayerNorm(3).double()

    def forward(self, x):
        return self.joined(self.bias.exp(), self.norm(x), torch.sigmoid(x)).square()


def contributions(model, x):
    found = []
    (gradient,) = grad(model(x).sum(), x, on_bias=lambda _, c: found.append(c.sum()))
    return gradient, [c for c in torch.stack(found).tolist() if c]


def test_every_operand_of_a_module_with_backward_hooks_has_its_own_flow():
    torch.manual_seed(0)
    model = Joining()
    x = torch.randn(4, 3).double().requires_grad_()
    gradient, biases = contributions(model, x)
    model.joined.register_full_backward_hook(lambda *_: None)
    found, found_biases = contributions(model, x)
    assert torch.equal(found, gradient)
    assert found_biases == pytest.approx(biases, rel=1e-12)
    total = (gradient * x).sum() + sum(found_biases)
    torch.testing.assert_close(total, model(x).sum(), rtol=1e-12, atol=0)


def test_attention_is_found_behind_backward_hooks():
    class Average(nn.Module):
        def forward(self, values, weights):
            return weights @ values

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.average = Average()
            self.qkv = nn.Linear(6, 18)

        def forward(self, x):
            q, k, v = self.qkv(x).chunk(3, -1)
            return self.average(v, (q @ k.mT).softmax(-1))

    model = Attention().double()
    x = torch.randn(2, 5, 6).double().requires_grad_()
    before = [contributions_under(model, x, rules) for rules in ("attn_lrp", "libra")]
    model.average.register_full_backward_hook(lambda *_: None)
    after = [contributions_under(model, x, rules) for rules in ("attn_lrp", "libra")]
    for first, second in zip(before, after, strict=True):
        assert torch.equal(first, second)


def contributions_under(model, x, rules):
    return grad(model(x).square().sum(), x, rules=RULE_SETS[rules])[0]


def test_a_graph_with_backward_hooks_is_explained_as_without():
    plain = Trained(nn.BatchNorm2d(8)).eval()
    hooked = Trained(nn.BatchNorm2d(8)).eval()
    hooked.load_state_dict(plain.state_dict())
    for module in hooked.modules():
        module.register_full_backward_hook(lambda *_: None)
        module.register_full_backward_pre_hook(lambda *_: None)
    x = images().float().requires_grad_()
    assert all(map(torch.equal, *(grad(m(x)[:, 0].sum(), x) for m in (plain, hooked))))


def test_a_model_of_timm_with_backward_hooks_everywhere():
    model = timm.create_model("levit_128s", num_classes=3).eval()
    x = torch.randn(1, 3, 224, 224).requires_grad_()
    (expected,) = grad(model(x)[:, 0].sum(), x)
    for module in model.modules():
        module.register_full_backward_hook(lambda *_: None)
    (found,) = grad(model(x)[:, 0].sum(), x)
    assert torch.equal(found, expected)
