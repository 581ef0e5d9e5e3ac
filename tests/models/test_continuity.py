"""Tokens are followed along the residual stream, wherever it leads them and whatever scales it."""

import pytest
import torch

from libragrad_lightning.models import Axes, TokenLayout, possible_layouts
from libragrad_lightning.models.continuity import carried
from libragrad_lightning.models.feature_view import FeatureView, possible_axes

T, D = 12, 5
PLACES = torch.randperm(T, generator=torch.Generator().manual_seed(3))
AXES = [Axes.TOKENS, Axes.TOKENS_FIRST, Axes.TOKENS_LAST, Axes.CHANNELS_LAST, Axes.CHANNELS_FIRST]


def image_twice():
    one = torch.randn(1, T, D, generator=torch.Generator().manual_seed(0)).double()
    return one.repeat(2, 1, 1).requires_grad_()


def followed(step, axes=Axes.TOKENS, dtype=torch.float64):
    """The number in the second tensor of each token of the first, as it is told and as it is."""
    first = axes.features(image_twice(), (3, 4)).to(dtype)
    second = axes.features(step(axes.sequence(first)), (3, 4))
    (found,) = carried([first, second], [axes, axes])
    return None if found is None else found.tolist()


def moved(scale):
    """A residual stream that is scaled and changes the order of tokens, beside a branch."""
    return lambda x: (x * scale)[:, PLACES] + torch.tanh(x.mean(1, keepdim=True))


MOVED = PLACES.argsort().tolist()
SCALES = torch.tensor([3.0, -0.5, 20.0, 1.0, -7.0]).double()


@pytest.mark.parametrize("axes", AXES)
def test_tokens_are_followed_in_any_axes(axes):
    assert followed(moved(SCALES), axes) == MOVED
    assert followed(lambda x: x * SCALES + 1.0, axes) == list(range(T))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_tokens_are_followed_as_far_as_numbers_are_exact(dtype):
    assert followed(moved(SCALES.to(dtype)), dtype=dtype) == MOVED
    assert followed(moved(SCALES.bfloat16()), dtype=torch.bfloat16) is None


def test_following_tokens_draws_nothing_that_others_draw():
    state = torch.get_rng_state()
    followed(moved(SCALES))
    assert torch.equal(state, torch.get_rng_state())


def mixing(scales, other):
    """A channel that has tokens in another order than the others."""

    def step(x):
        others = x[:, other, :1] * scales[0]
        return torch.cat([others, x[:, PLACES, 1:] * scales[1]], 2)

    return step


OTHER = PLACES.roll(5)


def test_channels_that_mix_tokens_tell_that_nothing_is_known():
    assert followed(mixing((1.0, 1.0), PLACES)) == MOVED
    assert followed(mixing((1.0, 1.0), OTHER)) is None
    assert followed(mixing((0.1, 10.0), OTHER)) is None


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_channels_that_hardly_count_tell_nothing(scale):
    assert followed(mixing((5e-4 * scale, scale), OTHER)) == MOVED
    assert followed(mixing((2e-3 * scale, scale), OTHER)) is None


def test_tokens_that_are_left_out_go_nowhere():
    kept = PLACES[:8]
    first = image_twice()
    (found,) = carried([first, first[:, kept] * 2.0], [Axes.TOKENS] * 2)
    expected = torch.full((T,), -1)
    expected[kept] = torch.arange(8)
    assert torch.equal(found, expected)


def test_tokens_that_become_one_have_its_number():
    first = image_twice()
    pooled = first.unflatten(1, (6, 2)).mean(2)
    (found,) = carried([first, pooled], [Axes.TOKENS] * 2)
    assert found.tolist() == [n // 2 for n in range(T)]


def test_a_run_of_levels_is_followed_from_each_to_the_next():
    first = image_twice()
    second = moved(SCALES)(first)
    third = second * 2.0
    narrow = third[:, :6]
    found = carried([first, second, third, narrow], [Axes.TOKENS] * 4)
    assert found[0].tolist() == MOVED
    assert found[1].tolist() == list(range(T))
    assert found[2].tolist() == [*range(6), *[-1] * 6]


VIEW = FeatureView(Axes.TOKENS, (2, 3), prefix=1)
MAP = FeatureView(Axes.CHANNELS_FIRST, (2, 3))
LAST = FeatureView(Axes.CHANNELS_LAST, (2, 3), cells=(3, 2))


@pytest.mark.parametrize(
    ("shape", "batch", "view", "names"),
    [
        ((4, 7, 9), 4, VIEW, "TOKENS"),
        ((4, 7, 2, 5), 4, VIEW, "TOKENS"),
        ((4, 9, 7), 4, VIEW, "TOKENS_LAST"),
        ((4, 7, 7), 4, VIEW, "TOKENS TOKENS_LAST"),
        ((28, 9), 4, VIEW, "ROWS"),
        ((28, 7), 4, VIEW, "ROWS LAST_ROWS"),
        ((20, 7), 4, VIEW, "LAST_ROWS"),
        ((21, 7), 4, VIEW, ""),
        ((4, 7), 4, VIEW, ""),
        ((28,), 4, VIEW, ""),
        ((7, 9), 1, VIEW, "ROWS"),
        ((1, 9), 1, FeatureView(Axes.TOKENS, (1, 1)), ""),
        ((4, 9, 2, 3), 4, VIEW, ""),
        ((4, 9, 2, 3), 4, MAP, "MAP_FIRST"),
        ((4, 2, 3, 9), 4, MAP, "MAP_LAST"),
        ((4, 2, 3, 3), 4, MAP, "MAP_LAST"),
        ((3, 9, 2, 3), 4, MAP, ""),
        ((4, 3, 2, 9), 4, LAST, "MAP_LAST"),
        ((4, 3, 2, 3), 4, LAST, "MAP_LAST"),
        ((4, 2, 3, 9), 4, LAST, ""),
        ((4, 3, 2, 2), 4, FeatureView(Axes.CHANNELS_LAST, (3, 2)), "MAP_LAST"),
        ((4, 2, 2, 2), 4, FeatureView(Axes.CHANNELS_LAST, (2, 2)), "MAP_LAST MAP_FIRST"),
        ((4, 2, 2, 2), 4, FeatureView(Axes.CHANNELS_FIRST, (2, 2)), "MAP_FIRST MAP_LAST"),
    ],
)
def test_layouts_that_a_shape_may_have(shape, batch, view, names):
    found = possible_layouts(shape, batch, view)
    assert found == [TokenLayout[name] for name in names.split()]


@pytest.mark.parametrize("layout", TokenLayout)
def test_tokens_are_found_in_every_layout(layout):
    grid = FeatureView(Axes.TOKENS, (2, 3))
    tokens = torch.arange(4 * 6 * 5).view(4, 6, 5)
    written = {
        TokenLayout.MAP_FIRST: lambda: tokens.transpose(1, 2).unflatten(2, (2, 3)),
        TokenLayout.MAP_LAST: lambda: tokens.unflatten(1, (2, 3)),
        TokenLayout.TOKENS: lambda: tokens.unflatten(2, (5, 1)),
        TokenLayout.ROWS: lambda: tokens.flatten(0, 1),
        TokenLayout.TOKENS_LAST: lambda: tokens.transpose(1, 2),
        TokenLayout.LAST_ROWS: lambda: tokens.transpose(1, 2).flatten(0, 1),
    }
    if layout in written:
        assert torch.equal(layout.tokens(written[layout](), 4, grid), tokens)


def test_axes_that_a_shape_may_have():
    assert possible_axes((2, 7, 5), 2) == [Axes.TOKENS, Axes.TOKENS_LAST]
    assert possible_axes((7, 2, 5), 2) == [Axes.TOKENS_FIRST]
    assert possible_axes((2, 2, 5), 2) == [Axes.TOKENS, Axes.TOKENS_LAST, Axes.TOKENS_FIRST]
    assert possible_axes((2, 7, 1), 2) == []
    assert possible_axes((2, 5, 3, 4), 2) == [Axes.CHANNELS_FIRST, Axes.CHANNELS_LAST]
    assert possible_axes((3, 5, 3, 4), 2) == possible_axes((2, 7), 2) == []
