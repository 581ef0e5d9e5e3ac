"""Axes and grids of feature tensors, and moving values between grids without losing any."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libragrad_lightning.models import Axes, FeatureView
from libragrad_lightning.models.feature_view import feature_view, overlap, patch_grid

TOKENS, LAST, FIRST = Axes.TOKENS, Axes.CHANNELS_LAST, Axes.CHANNELS_FIRST


@pytest.mark.parametrize(
    ("shape", "image", "expected"),
    [
        ((2, 197, 768), (224, 224), (TOKENS, (14, 14), 1)),
        ((2, 196, 768), (224, 224), (TOKENS, (14, 14), 0)),
        ((2, 201, 768), (224, 224), (TOKENS, (14, 14), 5)),
        ((2, 33, 12), (32, 64), (TOKENS, (4, 8), 1)),
        ((2, 96, 56, 56), (224, 224), (FIRST, (56, 56), 0)),
        ((2, 56, 56, 96), (224, 224), (LAST, (56, 56), 0)),
        ((2, 64, 4, 7), (100, 200), (FIRST, (4, 7), 0)),
        ((2, 768), (224, 224), None),
        ((2, 1, 768), (224, 224), None),
        ((2, 512, 1, 1), (224, 224), None),
        ((2, 3, 40, 7), (224, 224), None),
    ],
)
def test_axes_are_told_by_shape_and_aspect(shape, image, expected):
    view = feature_view(shape, image)
    assert (None if view is None else (view.axes, view.grid, view.prefix)) == expected


def test_a_declared_number_of_prefix_tokens_is_taken_at_its_word():
    assert feature_view((2, 197, 8), (224, 224), 1) == FeatureView(TOKENS, (14, 14), 1)
    assert feature_view((2, 197, 8), (224, 224), 0) is None


@pytest.mark.parametrize("axes", Axes)
def test_tokens_and_features_are_inverse(axes):
    shape = {TOKENS: (2, 12, 5), LAST: (2, 3, 4, 5), FIRST: (2, 5, 3, 4)}[axes]
    view, features = FeatureView(axes, (3, 4)), torch.randn(shape)
    assert view.tokens(features).shape == (2, 12, 5)
    assert torch.equal(view.features(view.tokens(features)), features)


def test_another_order_of_patches_is_undone():
    order = torch.randperm(12)
    view, features = FeatureView(TOKENS, (3, 4), order=order), torch.randn(2, 12, 5)
    assert torch.equal(view.tokens(features)[:, 0], features[:, order[0]])
    assert torch.equal(view.features(view.tokens(features)), features)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_moving_values_preserves_their_sum(a, b, c, d):
    values = torch.randn(2, 1 + a * b, dtype=torch.float64)
    moved = FeatureView(TOKENS, (a, b), 1).moved(values, FeatureView(TOKENS, (c, d), 1))
    assert moved.shape == (2, 1 + c * d)
    torch.testing.assert_close(moved.sum(1), values.sum(1))
    assert torch.equal(moved[:, 0], values[:, 0])


def test_values_move_to_the_area_that_they_cover():
    coarse = FeatureView(FIRST, (1, 2))
    moved = coarse.moved(torch.tensor([[4.0, 8.0]]), FeatureView(TOKENS, (2, 4), 1))
    assert moved.tolist() == [[0.0, 1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]]
    torch.testing.assert_close(
        overlap(2, 3), torch.tensor([[2 / 3, 0], [1 / 3, 1 / 3], [0, 2 / 3]]).double()
    )


def test_grids_need_the_aspect_ratio_of_the_image():
    assert patch_grid(196, (224, 224)) == (14, 14)
    assert patch_grid(195, (224, 224)) is None
    assert patch_grid(32, (32, 64)) == (4, 8)
    assert patch_grid(1, (32, 32)) is None
