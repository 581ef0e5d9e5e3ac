"""Trilinear forms, distances, thresholds and steps: complete with every constant they may have."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import FEW, SEEDS, check, fullgrad_sum, leaves, scaled
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from libragrad_lightning.backward import LIBRA, PLAIN, ConstantObserver, Role, grad
from libragrad_lightning.backward.graph import annotate_graph

POWERS = [0.5, 1.0, 1.5, 2.0, 3.0, float("inf")]


def assert_complete(output, inputs, rules=LIBRA):
    total, magnitude = fullgrad_sum(output, inputs, rules)
    assert abs(total - output.detach()) <= 1e-12 * magnitude


@FEW
@given(SEEDS, st.integers(1, 4))
def test_bilinear_layers_share_among_live_operands(seed, n):
    x, y, weight, bias = leaves(seed, (n, 3), (n, 4), (5, 3, 4), (5,))

    def form(x, y, weight, bias):
        return torch.einsum("ni,oij,nj->no", x, weight, y) + bias

    check(
        lambda x, y: F.bilinear(x, y, weight, bias),
        lambda x, y: scaled(form(x, y, weight, 0 * bias), 0.5) + bias,
        [x, y],
    )
    check(
        F.bilinear,
        lambda x, y, w, b: scaled(form(x, y, w, 0 * b), 1 / 3) + b,
        [x, y, weight, bias],
    )
    check(
        lambda x: F.bilinear(x, y.detach(), weight, bias),
        lambda x: form(x, y.detach(), weight, bias),
        [x],
    )
    check(
        lambda x: F.bilinear(x, x.sigmoid() @ weight[0], weight, bias),
        lambda x: form(x, (x.sigmoid() @ weight[0]).detach(), weight, bias),
        [x],
    )
    assert_complete(F.bilinear(x, x @ weight[0], weight, bias).square().sum(), [x])


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("rows", [3, 30])  # with more than 25 points other kernels are used
@FEW
@given(seed=SEEDS)
def test_distances(p, rows, seed):
    x, weight, points = leaves(seed, (rows, 4), (4, 4), (5, 4))
    buffer = points.detach()
    for measured in (
        lambda: torch.cdist(x, x.flip(0) @ weight, p=p),
        lambda: torch.cdist(x, points, p=p),
        lambda: torch.cdist(points[None] * 2, (x @ weight)[None], p=p),
        lambda: torch.cdist(x, buffer, p=p),
        lambda: torch.cdist(buffer, x @ weight, p=p),
    ):
        assert_complete((measured() * 3).square().sum(), [x])
        assert_complete(measured().sum(), [x], PLAIN)
        assert torch.equal(
            grad(measured().sum(), x)[0], torch.autograd.grad(measured().sum(), x)[0]
        )


def test_distances_of_points_that_coincide():
    (x,) = leaves(0, (3, 4))
    points = torch.cat([x.detach()[:1], x.detach()[1:] + torch.tensor([1.0, 0, 0, -2])])
    for p in POWERS:
        assert_complete(torch.cdist(x, points, p=p).sum(), [x])


def test_a_distance_to_a_constant_point_is_not_the_share_of_x_alone():
    x, points = leaves(0, (3, 4), (5, 4))
    value = torch.cdist(x, points).sum()
    (gradient,) = grad(value, x, retain_graph=True)
    assert abs((x * gradient).sum() - value) > 1e-2


def test_counting_differing_coordinates_is_no_distance():
    (x,) = leaves(0, (3, 4))
    value = (torch.cdist(x, x.detach() + 1, p=0) + x[:, :1]).sum()
    assert annotate_graph([value], [x], LIBRA).unknown() == {"CdistBackward0": 1}


@pytest.mark.parametrize("rules", [LIBRA, PLAIN], ids=repr)
@pytest.mark.parametrize("number", [0.0, 2.0])
def test_a_threshold_puts_a_number(rules, number):
    x, weight = leaves(0, (3, 4), (4, 4))
    for layer in (
        nn.Threshold(0.3, number),
        nn.Threshold(0.3, number, inplace=True),
        lambda x: torch.threshold(x, threshold=0.3, value=number),
    ):
        with ConstantObserver():
            output = (layer(x @ weight) @ weight).sum()
        assert_complete(output, [x], rules)


@pytest.mark.parametrize("step", [torch.sign, torch.round, torch.floor, torch.ceil, torch.trunc])
@pytest.mark.parametrize("rules", [LIBRA, PLAIN], ids=repr)
def test_a_step_that_is_added_is_a_constant(step, rules):
    x, weight = leaves(0, (3, 4), (4, 4))
    with ConstantObserver():
        output = (x @ weight + step(3 * x) @ weight).sum()
    assert_complete(output, [x], rules)
    expected = weight.sum(1).detach().expand(3, 4)
    torch.testing.assert_close(grad(output, x, rules=rules)[0], expected)


def test_an_absolute_value_by_its_sign():
    (x,) = leaves(0, (3, 4))
    check(lambda x: x * x.sign(), torch.abs, [x])


@pytest.mark.parametrize(
    "phi",
    [torch.erf, torch.atan, torch.log1p, torch.sin, torch.expm1, F.softshrink, F.tanhshrink],
)
def test_activations_by_themselves_are_complete_with_their_rule_alone(phi):
    x, weight = leaves(0, (3, 4), (4, 4))
    x = x.abs().detach().requires_grad_()
    output = (phi(x) @ weight).sum()
    assert_complete(output, [x])
    total, _ = fullgrad_sum(output, [x], LIBRA.without(Role.ACTIVATION))
    assert abs(total - output) > 1e-3


def test_a_grid_of_parameters_is_a_constant():
    x, theta = leaves(0, (1, 2, 4, 4), (1, 2, 3))
    output = F.grid_sample(x, F.affine_grid(theta, (1, 2, 3, 3), False), align_corners=False)
    check(
        lambda x: F.grid_sample(x, F.affine_grid(theta, (1, 2, 3, 3), False), align_corners=False),
        lambda x: F.grid_sample(
            x, F.affine_grid(theta.detach(), (1, 2, 3, 3), False), align_corners=False
        ),
        [x],
    )
    assert_complete(output.square().sum(), [x])
