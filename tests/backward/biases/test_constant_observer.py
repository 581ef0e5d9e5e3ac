"""Constants that the graph does not hold, and values that the rules hold constant, are biases."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, BiasRecord, fullgrad_sum, leaves
from hypothesis import given
from torch import nn

from libragrad_lightning.backward import LIBRA, PLAIN, ConstantObserver, grad
from libragrad_lightning.backward.biases import BiasKind

BUFFER = torch.linspace(-2, 3, 12, dtype=torch.float64).reshape(3, 4)
MASK = torch.eye(3, 4, dtype=torch.bool)
PARAMETER = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, requires_grad=True)

UNRECORDED = {
    "buffer_added": lambda x: x + BUFFER,
    "added_to_buffer": lambda x: BUFFER[0] + x,
    "number_added": lambda x: 3 + x,
    "buffer_subtracted": lambda x: x - BUFFER,
    "subtracted_from_buffer": lambda x: BUFFER - x,
    "subtracted_from_number": lambda x: 1 - x,
    "scaled_addend": lambda x: torch.add(x, BUFFER, alpha=0.5),
    "scaled_subtrahend": lambda x: torch.sub(BUFFER, x, alpha=0.5),
    "reversed_subtraction": lambda x: torch.rsub(x, BUFFER, alpha=2),
    "in_place": lambda x: (x * 1).add_(BUFFER).sub_(0.25),
    "augmented": lambda x: x.clone().__iadd__(1.5),
    "concatenated": lambda x: torch.cat([x, BUFFER], 1),
    "stacked": lambda x: torch.stack([BUFFER, x]),
    "chosen_buffer": lambda x: torch.where(MASK, x, BUFFER),
    "chosen_number": lambda x: torch.where(MASK, 2.0, x),
    "filled": lambda x: x.masked_fill(MASK, 5.0),
    "filled_rows": lambda x: x.index_fill(0, torch.tensor([1]), 5.0),
    "put": lambda x: x.index_put((torch.tensor([2, 0]),), BUFFER[:2]),
    "put_and_added": lambda x: x.index_put((torch.tensor([2, 2]),), BUFFER[:2], accumulate=True),
    "added_by_index": lambda x: x.index_add(0, torch.tensor([1, 1]), BUFFER[:2], alpha=-0.5),
    "scattered": lambda x: x.scatter(1, torch.tensor([[3], [0], [1]]), BUFFER[:, :1]),
    "scattered_number": lambda x: x.scatter(1, torch.tensor([[3], [0], [1]]), 2.5),
    "added_by_scatter": lambda x: x.scatter_add(1, torch.tensor([[3], [0], [1]]), BUFFER[:, :1]),
    "masked": lambda x: x.masked_scatter(MASK, BUFFER),
    "row": lambda x: x.select_scatter(BUFFER[0], 0, 1),
    "rows": lambda x: x.slice_scatter(BUFFER[1:], 0, 0, 2),
    "diagonal": lambda x: x.diagonal_scatter(BUFFER[1, :3]),
    "between": lambda x: torch.lerp(BUFFER, x, 0.3),
    "complex": lambda x: torch.view_as_real(torch.complex(x, BUFFER)),
    "product": lambda x: torch.addcmul(x, BUFFER, BUFFER, value=0.5),
    "matrix_product": lambda x: torch.addmm(x, BUFFER[:, :3], BUFFER, beta=2, alpha=0.5),
    "batched_product": lambda x: torch.baddbmm(x[None], BUFFER[None, :, :3], BUFFER[None]),
    "vector_product": lambda x: torch.addmv(x[:, 0], BUFFER, BUFFER[0]),
    "bias_of_a_linear_map": lambda x: F.linear(x, BUFFER, BUFFER[:, 0]),
    "bias_of_a_matrix_product": lambda x: torch.addmm(BUFFER, x[:, :3], BUFFER, beta=2),
    "bias_of_a_batched_product": lambda x: torch.baddbmm(
        BUFFER[None], x[None, :, :3], BUFFER[None]
    ),
    "bias_of_a_vector_product": lambda x: torch.addmv(BUFFER[:, 1], x, BUFFER[0]),
    "bias_of_a_product": lambda x: torch.addcmul(BUFFER, x, BUFFER, value=0.5),
    "bias_of_a_convolution": lambda x: F.conv1d(x[None], BUFFER[:2, :3, None], BUFFER[0, 1:3]),
    "padded": lambda x: F.pad(x, (1, 0), value=0.5),
    "copied_rows": lambda x: x.index_copy(0, torch.tensor([2, 0]), BUFFER[:2]),
    "copied_rows_in_place": lambda x: (x * 1).index_copy_(0, torch.tensor([1]), BUFFER[:1]),
    "constant_map_with_a_recorded_bias": lambda x: (
        F.linear(x, BUFFER) + F.linear(BUFFER, BUFFER, PARAMETER)
    ),
    "constant_map_of_rows_with_a_recorded_bias": lambda x: (
        F.linear(x, BUFFER) + F.linear(BUFFER[None], BUFFER, bias=PARAMETER)
    ),
    "bias_of_a_linear_map_of_rows": lambda x: F.linear(x[None], BUFFER, bias=BUFFER[:, 0]),
    "bias_of_a_batch_norm": lambda x: F.batch_norm(
        x[None], BUFFER[:, 0], BUFFER[:, 1].square() + 1, None, BUFFER[:, 2]
    ),
}


def changed(x, write):
    y = x * 1
    write(y)
    return y


def filled_buffer(x, write):
    y = BUFFER.clone()
    write(y, x)
    return y


UNRECORDED |= {
    "row_set": lambda x: changed(x, lambda y: y.__setitem__(1, 3.0)),
    "column_set": lambda x: changed(x, lambda y: y.__setitem__((slice(None), 1), BUFFER[:, 0])),
    "column_increased": lambda x: changed(x, lambda y: y[:, 1].add_(BUFFER[:, 0], alpha=2)),
    "transposed_decreased": lambda x: changed(x, lambda y: y.T[1:3].sub_(2)),
    "transposed_subtracted": lambda x: changed(x, lambda y: y.T[1:3].subtract_(2)),
    "row_copied": lambda x: changed(x, lambda y: y[2].copy_(BUFFER[1])),
    "row_masked": lambda x: changed(x, lambda y: y[1].masked_fill_(MASK[1], 4.0)),
    "view_increased": lambda x: F.linear(x, torch.eye(4).double()).view(4, 3).add_(1.5),
    "row_of_a_transpose": lambda x: changed(x.T, lambda y: y.__setitem__(1, 3.0)),
    "buffer_with_a_row": lambda x: filled_buffer(x, lambda y, x: y.__setitem__(1, x[0])),
    "buffer_with_a_sum": lambda x: filled_buffer(x, lambda y, x: y[1:].add_(x[0])),
}


def test_a_convolution_without_a_bias_adds_nothing():
    (x,) = leaves(0, (3, 4))
    record = BiasRecord()
    with ConstantObserver():
        output = F.conv1d(x[None], BUFFER[:2, :3, None]).square().sum()
    grad(output, x, on_bias=record)
    assert record.contributions == []


@pytest.mark.parametrize("drop", [F.alpha_dropout, F.feature_alpha_dropout])
def test_a_constant_that_is_drawn_is_the_one_that_was_added(drop):
    (x,) = leaves(0, (3, 4))
    with ConstantObserver():
        value = drop(x, 0.5, training=True)
    state = torch.get_rng_state()
    total, magnitude = fullgrad_sum(output := (value * BUFFER).sum(), [x])
    assert abs(total - output.detach()) <= 1e-13 * magnitude
    assert torch.equal(state, torch.get_rng_state())


def test_rows_that_are_increased_are_counted_once():
    (x,) = leaves(0, (3, 4))
    with ConstantObserver():
        y = x * 1
        y[1] += 2.0
        y[:, 0] -= BUFFER[:, 1]
    total, magnitude = fullgrad_sum(output := (y * BUFFER).sum(), [x])
    assert abs(total - output.detach()) <= 1e-13 * magnitude


def test_notes_of_writes_keep_no_tensor_alive():
    (x,) = leaves(0, (3, 4))
    with ConstantObserver():
        y = x * 1
        y[1] = 3.0
        y[:, 1].add_(x[:, 0])
    alive = weakref.ref(y)
    del y
    assert alive() is None


# Not complete under ordinary gradients, whatever their biases.
NORMS = {
    "bias_of_a_layer_norm": lambda x: F.layer_norm(x, (4,), BUFFER[0], BUFFER[1]),
    "bias_of_a_group_norm": lambda x: F.group_norm(x[None], 1, None, BUFFER[:, 1]),
    "bias_of_an_instance_norm": lambda x: F.instance_norm(x[None], bias=BUFFER[:, 1]),
}


@pytest.mark.parametrize("rules", [LIBRA, PLAIN], ids=repr)
@pytest.mark.parametrize("name", UNRECORDED)
def test_an_observed_constant_completes_the_sum(name, rules):
    (x,) = leaves(0, (3, 4))
    with ConstantObserver():
        value = UNRECORDED[name](x)
    plain = UNRECORDED[name](x)
    assert torch.equal(value, plain)
    weight = torch.randn(value.shape, dtype=value.dtype)
    output, unobserved = (value * weight).sum(), (plain * weight).sum()
    total, magnitude = fullgrad_sum(output, [x], rules)
    assert abs(total - output.detach()) <= 1e-13 * magnitude
    missing, _ = fullgrad_sum(unobserved, [x], rules)
    assert abs(missing - output.detach()) > 1e-2


@pytest.mark.parametrize("name", NORMS)
def test_the_bias_of_a_norm_may_be_a_buffer(name):
    (x,) = leaves(0, (3, 4))
    with ConstantObserver():
        value = NORMS[name](x)
    output = (value * torch.randn(value.shape, dtype=value.dtype)).sum()
    total, magnitude = fullgrad_sum(output, [x])
    assert abs(total - output.detach()) <= 1e-13 * magnitude


@FEW
@given(SEEDS)
def test_recorded_and_unrecorded_constants_are_counted_once_each(seed):
    x, parameter = leaves(seed, (3, 4), (4,))
    with ConstantObserver():
        y = torch.cat([x - BUFFER, (x + parameter) + 2, parameter.expand(1, 4)])
    record = BiasRecord()
    weight = torch.randn(y.shape, dtype=y.dtype)
    (gradient,) = grad((y * weight).sum(), x, on_bias=record, retain_graph=True)
    total = (x * gradient).sum() + record.total()
    torch.testing.assert_close(total, (y * weight).sum(), rtol=1e-12, atol=1e-12)
    kinds = [site.kind for site in record.sites]
    assert kinds.count(BiasKind.OBSERVED) == kinds.count(BiasKind.RECORDED) == 2


def test_contributions_of_a_buffer_have_the_shape_of_the_output():
    (x,) = leaves(1, (3, 4))
    with ConstantObserver():
        output = (x + BUFFER[0]) * 2
    record = BiasRecord()
    grad(output, x, torch.ones_like(output), on_bias=record)
    (contribution,) = record.contributions
    torch.testing.assert_close(contribution, 2 * BUFFER[0].expand(3, 4), rtol=0, atol=0)


def test_infinite_masks_contribute_nothing_under_ordinary_gradients():
    (x,) = leaves(2, (3, 3))
    with ConstantObserver():
        weights = x.masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf).softmax(-1)
    total, _ = fullgrad_sum((weights * x).sum(), [x], PLAIN)
    assert total.isfinite()


def test_the_observer_notes_nothing_about_recorded_operands():
    x, parameter = leaves(3, (3, 4), (4,))
    with ConstantObserver():
        y = torch.cat([x + parameter, x * BUFFER, F.linear(x, torch.eye(4).double())])
    for node in [y.grad_fn, *(child for child, _ in y.grad_fn.next_functions)]:
        assert not node.metadata


GATES = {
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "logsumexp": lambda x: x.logsumexp(-1, keepdim=True),
    "logsigmoid": F.logsigmoid,
    "softplus": lambda x: F.softplus(x, beta=2, threshold=1),
    "exp": torch.exp,
    "log": lambda x: (x**2 + 1).log(),
    "cos": torch.cos,
    "power_of_two": lambda x: 2**x,
    "reciprocal": lambda x: 1 / (x**2 + 1),
    "rsqrt": lambda x: (x**2 + 1).rsqrt(),
    "negative_power": lambda x: (x**2 + 1) ** -1.5,
    "quotient": lambda x: BUFFER / (x**2 + 1),
    "norm": lambda x: x.norm(dim=-1, keepdim=True),
    "vector_norm": lambda x: torch.linalg.vector_norm(x, dim=-1, keepdim=True),
    "std": lambda x: x.std(-1, keepdim=True),
    "variance": lambda x: x.var(-1, keepdim=True),
    "variance_of_all": lambda x: x.var(),
    "product_of_gates": lambda x: x.sigmoid() * x.cos(),
    "matrix_product_of_gates": lambda x: x.softmax(-1) @ x.sigmoid().mT @ BUFFER,
    "attention_to_gates": lambda x: F.scaled_dot_product_attention(*[x[None]] * 2, x[None].cos())[
        0
    ],
    "gate_over_gate": lambda x: x.sigmoid() / (x.exp() + 1),
    "normalized_gate": lambda x: F.layer_norm(x.sigmoid(), (4,)),
    "activated_gate": lambda x: F.gelu(x.cos()),
    "gate_of_a_gate": lambda x: x.sigmoid().exp(),
    "scaled_gate": lambda x: 3 * x.sigmoid() @ torch.full((4, 4), 0.3, dtype=torch.float64),
}


@pytest.mark.parametrize("name", GATES)
def test_a_held_value_that_is_added_is_a_bias(name):
    (x,) = leaves(4, (3, 4))
    layer = nn.Linear(4, 4).double()
    output = ((layer(x) + GATES[name](x)) ** 2).sum()
    record = BiasRecord()
    (gradient,) = grad(output, x, on_bias=record, retain_graph=True)
    magnitude = torch.stack([part.abs().sum() for part in record.contributions]).sum()
    total = (x * gradient).sum() + record.total()
    assert abs(total - output).item() <= 1e-12 * (1 + magnitude.item())
    held = [
        contribution.abs().sum()
        for site, contribution in zip(record.sites, record.contributions, strict=True)
        if site.kind is BiasKind.HELD
    ]
    assert sum(held) > 1e-3


MULTIPLYING = {
    **{n: gate for n, gate in GATES.items() if n not in ("quotient", "attention_to_gates")},
    "expm1": torch.expm1,
    "sin": torch.sin,
    "erf": torch.erf,
}


@pytest.mark.parametrize("name", MULTIPLYING)
def test_a_held_value_that_multiplies_is_no_bias(name):
    (x,) = leaves(5, (3, 4))
    record = BiasRecord()
    gate = MULTIPLYING[name]
    (gradient,) = grad((x * gate(x)).sum(), x, on_bias=record)
    torch.testing.assert_close(gradient, gate(x).detach().expand(3, 4), rtol=1e-12, atol=0)
    assert not any(contribution.any() for contribution in record.contributions)


def test_ordinary_gradients_hold_nothing():
    (x,) = leaves(6, (3, 4))
    record = BiasRecord()
    grad((x + x.sigmoid()).sum(), x, rules=PLAIN, on_bias=record)
    assert not record.sites
