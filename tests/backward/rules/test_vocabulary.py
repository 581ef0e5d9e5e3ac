"""The table of operations: its linear entries are linear, and names and rule sets are looked up."""

import dataclasses
import pickle

import pytest
import torch
import torch.nn.functional as F
from backward_cases import leaves
from linear_cases import LINEAR, NOT_HERE

from libragrad_lightning.backward import (
    ALI_LRP,
    ATTN_LRP,
    DECOMPX,
    LIBRA,
    PLAIN,
    RULE_SETS,
    VOCABULARY,
    Correction,
    Flow,
    Gate,
    Linear,
    Role,
    Vocabulary,
    grad,
    ordinary_gradient,
    stop_gradient,
)
from libragrad_lightning.backward.graph import annotate_graph


def names_behind(value):
    names, stack = set(), [value.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None:
            names.add(node.name())
            stack += [child for child, _ in node.next_functions]
    return names


@pytest.mark.parametrize("name", LINEAR)
def test_linear_entries_record_their_name_and_are_complete_with_ordinary_gradients(name):
    (x,) = leaves(0, (4, 6))
    value = LINEAR[name](x)
    assert any(recorded.startswith(name) for recorded in names_behind(value))
    assert VOCABULARY[name if name[-1].isdigit() or ":" in name else f"{name}0"].role is Role.LINEAR
    cotangent = torch.randn(value.shape).to(value)
    (expected,) = torch.autograd.grad(value, x, cotangent, retain_graph=True)
    (gradient,) = grad(value, x, cotangent)
    assert torch.equal(gradient, expected)
    total = (value * cotangent).sum().double()
    tolerance = 1e-5 if value.dtype == torch.float32 else 1e-12
    torch.testing.assert_close((x * gradient).sum(), total, rtol=tolerance, atol=tolerance)


def test_every_linear_entry_is_tested():
    linear = {name for name in VOCABULARY if VOCABULARY[name].role is Role.LINEAR}
    clamps = {name for name in linear if name.startswith("Clamp")}
    assert linear - clamps == set(LINEAR) | set(NOT_HERE)


def test_a_name_is_found_exactly_and_then_without_its_number():
    base, overload = Linear(), Gate()
    table = Vocabulary({"FooBackward": base, "FooBackward2": overload})
    assert table["FooBackward0"] is table["FooBackward"] is table["FooBackward13"] is base
    assert table["FooBackward2"] is overload
    assert "FooBackward1" in table
    assert "FooForward" not in table
    assert table.get("BarBackward0") is None
    assert 3 not in table
    assert sorted(table) == ["FooBackward", "FooBackward2"]
    assert len(table) == 2
    with pytest.raises(KeyError):
        table["BarBackward0"]


def test_extended_and_replaced_tables_leave_the_original_alone():
    gate = Gate()
    before = dict(VOCABULARY)
    extended = VOCABULARY.extended({"FooBackward": gate, "GeluBackward1": gate})
    replaced = VOCABULARY.replaced({"GeluBackward": gate})
    assert extended["FooBackward0"] is extended["GeluBackward1"] is gate
    assert extended["GeluBackward0"] is VOCABULARY["GeluBackward0"]
    assert replaced["GeluBackward0"] is gate
    assert len(replaced) == len(VOCABULARY) == len(extended) - 2
    assert dict(VOCABULARY) == before
    with pytest.raises(ValueError, match=r"\['GeluBackward'\] are in the vocabulary.*`replaced`"):
        VOCABULARY.extended({"FooBackward": gate, "GeluBackward": gate})
    with pytest.raises(ValueError, match=r"\['FooBackward'\] are not in the.*`extended`"):
        VOCABULARY.replaced({"FooBackward": gate, "GeluBackward": gate})


def test_rule_sets_derive_from_each_other():
    named = LIBRA.without(Role.GATE, Role.POWER, name="mine")
    assert (named.name, repr(named)) == ("mine", "RuleSet('mine')")
    assert set(LIBRA.rules) - set(named.rules) == {Role.GATE, Role.POWER}
    assert LIBRA.without(Role.GATE, Role.POWER).name == "libra_without_gate_power"
    other = PLAIN.overridden({Role.GATE: stop_gradient}, "gates")
    assert dict(other.rules) == {Role.GATE: stop_gradient}
    assert not PLAIN.rules
    assert (
        other.overridden({Role.GATE: ordinary_gradient}, "kept").rules[Role.GATE]
        is ordinary_gradient
    )
    assert other.vocabulary is PLAIN.vocabulary
    assert PLAIN.without(Role.GATE).rules == {}
    with pytest.raises(dataclasses.FrozenInstanceError):
        LIBRA.name = "other"


def test_a_rule_set_copies_its_table():
    table = {Role.GATE: stop_gradient}
    rules = type(LIBRA)("mine", table)
    table.clear()
    assert set(rules.rules) == {Role.GATE}


def test_the_competitors_differ_from_libra_in_what_the_paper_says():
    def differing(rules):
        roles = set(LIBRA.rules) | set(rules.rules)
        return {r for r in roles if LIBRA.rules.get(r) != rules.rules.get(r)}

    assert differing(ATTN_LRP) == {Role.ATTENTION}
    assert differing(ALI_LRP) == {Role.ACTIVATION, Role.PRODUCT}
    assert differing(DECOMPX) == {Role.PRODUCT}


@pytest.mark.parametrize("name", RULE_SETS)
def test_rule_sets_survive_pickling(name):
    rules = RULE_SETS[name]
    copy = pickle.loads(pickle.dumps(rules))
    assert copy == rules
    (x,) = leaves(0, (2, 4))
    y = (F.gelu(x).square().sqrt() / (x.square() + 1)).sum()
    assert torch.equal(
        grad(y, x, rules=rules, retain_graph=True)[0],
        grad(y, x, rules=copy, retain_graph=True)[0],
    )


def test_a_rule_of_ones_own_decides_the_weights():
    def third(operation, node, flows):
        assert operation.role is Role.GATE
        return Correction((1 / 3,) * len(flows))

    (x,) = leaves(0, (3,))
    y = torch.sigmoid(x).sum()
    (expected,) = torch.autograd.grad(y, x, retain_graph=True)
    (gradient,) = grad(y, x, rules=PLAIN.overridden({Role.GATE: third}, "third"))
    torch.testing.assert_close(gradient, expected / 3, rtol=1e-15, atol=0)


def test_an_annotated_graph_tells_order_flow_and_dependence():
    x, z, weight = leaves(0, (3, 4), (3, 4), (4,))
    y = x * torch.sigmoid(x * weight) + (z * weight.exp()).sum()
    nodes = annotate_graph([y], [x, z], LIBRA).nodes
    by_name = {}
    for annotated in nodes:
        by_name.setdefault(annotated.node.name(), []).append(annotated)
    (gate,) = by_name["SigmoidBackward0"]
    assert (gate.flow, gate.depends_on) == (Flow.DEAD, {0})
    (total,) = by_name["AddBackward0"]
    assert (total.flow, total.depends_on) == (Flow.LIVE, {0, 1})
    assert nodes[-1] is total
    assert "ExpBackward0" not in by_name
    gated = next(r for r in by_name["MulBackward0"] if Flow.DEAD in r.flows)
    assert gated.flows == (Flow.LIVE, Flow.DEAD)
    assert gated.correction.weights == (1.0, 0.0)
    scaled = next(r for r in by_name["MulBackward0"] if r.depends_on == {1})
    assert scaled.flows == (Flow.LIVE, Flow.CONSTANT)
