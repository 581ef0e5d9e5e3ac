"""Bounded or normalized weights: their value is a constant (Thm 5)."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, check, leaves
from hypothesis import given
from hypothesis import strategies as st

from libragrad_lightning.backward import LIBRA, PLAIN, Role, grad

GATES = {
    "sigmoid": torch.sigmoid,
    "sigmoid_in_place": lambda x: x.clone().sigmoid_(),
    "hardsigmoid": F.hardsigmoid,
    "softmax": lambda x: x.softmax(-1),
    "safe_softmax": lambda x: torch._safe_softmax(x, -1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "logsumexp": lambda x: x.logsumexp(-1, keepdim=True),
    "softplus": F.softplus,
    "logsigmoid": F.logsigmoid,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "log": lambda x: torch.log(x.abs() + 1),
    "log2": lambda x: torch.log2(x.abs() + 1),
    "log10": lambda x: torch.log10(x.abs() + 1),
    "erfc": torch.erfc,
    "logaddexp": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "cos": torch.cos,
    "sign": torch.sign,
    "round": torch.round,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "trunc": torch.trunc,
}


@pytest.mark.parametrize("name", GATES)
@FEW
@given(seed=SEEDS, rows=st.integers(1, 4), columns=st.integers(2, 4))
def test_a_gate_is_a_constant_factor(name, seed, rows, columns):
    gate = GATES[name]
    x, value, weight = leaves(seed, (rows, columns), (rows, columns), (columns, columns))
    check(
        lambda x, v: v * gate(x @ weight),
        lambda x, v: v * gate(x @ weight).detach(),
        [x, value],
    )


@pytest.mark.parametrize("name", GATES)
def test_a_gate_alone_hands_on_zeros(name):
    (x,) = leaves(0, (3, 4))
    value = GATES[name](x).sum()
    (gradient,) = grad(value, x, retain_graph=True)
    assert torch.equal(gradient, torch.zeros_like(x))
    (plain,) = grad(value, x, rules=LIBRA.without(Role.GATE), retain_graph=True)
    assert torch.equal(plain, grad(value, x, rules=PLAIN)[0])


@FEW
@given(SEEDS, st.integers(1, 3), st.integers(1, 3))
def test_quick_gelu_and_squeeze_excite_keep_the_gated_value(seed, b, n):
    x, squeeze, excite = leaves(seed, (b, n, 4), (2, 4), (4, 2))

    def attention(x):
        return torch.sigmoid(F.relu(x.mean(1, keepdim=True) @ squeeze.T) @ excite.T)

    check(lambda x: x * attention(x), lambda x: x * attention(x).detach(), [x])
    check(
        lambda x: x * torch.sigmoid(1.702 * x),
        lambda x: x * torch.sigmoid(1.702 * x).detach(),
        [x],
    )


def test_a_gate_that_is_added_is_a_constant():
    (x,) = leaves(0, (3, 4))
    check(lambda x: x + torch.sigmoid(x), lambda x: x + torch.sigmoid(x).detach(), [x])
