"""The same function has the same map, wherever its tokens stand and however it is written."""

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from layout_models import ORDERS, WRITINGS, Layout, laid_out, layouts

from libragrad_lightning import explain

pytestmark = pytest.mark.rotating

EXPLAINED = (
    ("libra", "fullgrad_plus"),
    ("plain", "fullgrad_plus"),
    ("libra", "attcat"),
    ("plain", "genatt"),
    ("libra", "gradcam_plus"),
)


def assert_same_maps(layout, images, batch_size=None):
    height, width = layout.grid
    generator = torch.Generator().manual_seed(images)
    x = torch.randn(images, 3, 8 * height, 8 * width, generator=generator).double()
    model, twin = laid_out(layout), laid_out(layout.plain)
    with torch.no_grad():
        torch.testing.assert_close(model(x), twin(x))
    for rules, method in EXPLAINED:
        if rules == "plain" and layout.pooled and method == "genatt":
            continue
        arguments = {"target": 1, "rules": rules, "method": method}
        expected = explain(twin, x, **arguments)
        found = explain(model, x, batch_size=batch_size, **arguments)
        assert found.attribution.shape == expected.attribution.shape
        scale = expected.attribution.abs().max()
        torch.testing.assert_close(
            found.attribution, expected.attribution, rtol=0, atol=1e-9 * float(scale)
        )
        torch.testing.assert_close(found.reward_sums, expected.reward_sums)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
@given(layouts(), st.integers(1, 4), st.sampled_from([None, 1, 2]))
@example(Layout((4, 4), 4, 1, 0), 3, None)
@example(Layout((4, 6), 10, 3, 5, "columns", loose=True), 2, None)
@example(Layout((3, 4), 11, 12, 11, width=24), 2, None)  # as many tokens as channels
@example(Layout((2, 2), 3, 4, 0, writing="rows", width=8), 2, None)
@pytest.mark.slow
def test_layouts_have_the_map_of_the_plain_one(layout, images, batch_size):
    assert_same_maps(layout, images, batch_size)


@pytest.mark.parametrize("writing", WRITINGS)
def test_every_writing(writing):
    assert_same_maps(Layout((2, 3), 2, 1, 0, writing=writing), 3)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order(order):
    assert_same_maps(Layout((4, 6), 1, 1, 1, order, loose=True), 2)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layouts(), st.integers(1, 4), st.sampled_from([None, 1, 2]))
def test_many_layouts(layout, images, batch_size):
    assert_same_maps(layout, images, batch_size)
