"""Axes and grids of feature tensors, and moving values between grids without losing any."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libragrad_lightning.models import Axes, FeatureView, JoinedView
from libragrad_lightning.models.feature_view import overlap, possible_axes

TOKENS, LAST, FIRST = Axes.TOKENS, Axes.CHANNELS_LAST, Axes.CHANNELS_FIRST


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 197, 768), [TOKENS, Axes.TOKENS_LAST]),
        ((197, 2, 768), [Axes.TOKENS_FIRST]),
        ((2, 96, 56, 56), [FIRST, LAST]),
        ((2, 768), []),
        ((2, 1, 768), []),
        ((2, 512, 1, 1), []),
        ((8, 49, 96), []),
    ],
)
def test_axes_in_which_a_tensor_may_hold_tokens(shape, expected):
    assert possible_axes(shape, 2) == expected


@pytest.mark.parametrize("axes", Axes)
def test_tokens_and_features_are_inverse(axes):
    shapes = {TOKENS: (2, 12, 5), LAST: (2, 3, 4, 5), FIRST: (2, 5, 3, 4)}
    shapes |= {Axes.TOKENS_FIRST: (12, 2, 5), Axes.TOKENS_LAST: (2, 5, 12)}
    shape = shapes[axes]
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


def test_some_tokens_keep_the_places_that_they_have_in_the_model():
    order = torch.tensor([4, 3, 1, 0, 2])  # a class token at the end, patches in another order
    view, tokens = FeatureView(TOKENS, (2, 2), 1, order), torch.arange(5.0)[None, :, None]
    features = view.features(tokens)
    assert features.flatten().tolist() == [3.0, 2.0, 4.0, 1.0, 0.0]
    chosen = view.selected(tokens, torch.tensor([[0, 1, 3]]))
    assert chosen.flatten().tolist() == [3.0, 1.0, 0.0]
    patches = torch.tensor([[0, 2]])
    assert view.patches_in_model(patches, patches).tolist() == [[0, 3]]


def test_passes_are_added_on_one_grid():
    turned = torch.tensor([1, 0, 3, 2])
    view = JoinedView((FeatureView(TOKENS, (2, 2)), FeatureView(TOKENS, (2, 2), 0, turned)))
    features = (torch.arange(4.0)[None, :, None], 10 * torch.arange(4.0)[None, :, None])
    tokens = view.tokens(features)
    assert tokens.flatten().tolist() == [0, 1, 2, 3, 10, 0, 30, 20]
    assert view.on_grid(tokens[..., 0]).tolist() == [[[10, 1], [32, 23]]]
    assert all(map(torch.equal, view.features(tokens), features))
    kept = view.kept(torch.tensor([[True, False, False, True]]))
    assert kept.flatten().tolist() == [True, False, False, True] * 2
