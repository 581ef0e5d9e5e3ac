"""Every operation is checked against its rule, and what differs is found."""

import math
from dataclasses import replace

import pytest
import torch

from libragrad_lightning.backward import LIBRA, VOCABULARY, Role, Vocabulary
from libragrad_lightning.diagnosis import check_operations
from libragrad_lightning.diagnosis.operation_examples import operation_examples

EXAMPLES = list(operation_examples())


def found(rules=LIBRA):
    return {check.name: check for check in check_operations(rules)}


def test_this_installation_is_sound():
    checks = found()
    assert len(checks) == len(EXAMPLES) > 150
    assert {name: check for name, check in checks.items() if not check.passes} == {}


def test_most_kinds_of_nodes_are_met_and_every_role():
    names = {node for check in found().values() for node in check.nodes}
    met = {VOCABULARY.get(n) or VOCABULARY.get(n.rstrip("0123456789")) for n in names}
    assert None not in met
    assert {operation.role for operation in met} == set(Role)
    assert len(names) > 135


@pytest.mark.parametrize(
    ("node", "examples"),
    [
        ("GeluBackward", {"gelu", "gelu, tanh"}),
        ("ConvolutionBackward", {"convolution", "grouped convolution", "transposed convolution"}),
        ("NativeLayerNormBackward", {"layer norm"}),
        ("RollBackward", {"roll"}),
    ],
)
def test_a_node_of_another_name_is_found(node, examples):
    renamed = {k: v for k, v in VOCABULARY.items() if k != node}
    rules = replace(LIBRA, vocabulary=Vocabulary(renamed))
    failed = {name: check for name, check in found(rules).items() if not check.passes}
    assert set(failed) == examples
    for check in failed.values():
        assert math.isnan(check.error)
        assert node in check.reason


@pytest.mark.parametrize("role", [Role.GATE, Role.ACTIVATION, Role.NORMALIZATION, Role.QUOTIENT])
def test_a_rule_that_is_not_libragrads_is_found(role):
    failed = [check for check in found(LIBRA.without(role)).values() if not check.passes]
    assert failed
    assert all(check.error > 1e-4 for check in failed)


def test_examples_take_the_tensors_that_they_say():
    for example in EXAMPLES:
        inputs = torch.randn(example.count, 2, 3, 8, 8, dtype=torch.float64)
        output = example.forward(*inputs)
        torch.testing.assert_close(output, example.reference(*inputs), rtol=1e-9, atol=1e-12)
