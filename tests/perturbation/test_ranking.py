"""Ties: random, the same for an image whatever its company, and without a habit over images."""

import math
from collections import Counter
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from libragrad_lightning.metrics import SymmetricRelevanceGain
from libragrad_lightning.models import Axes, Level, Point, TokenModel, read_token_model
from libragrad_lightning.perturbation import LEVELS, deletion_logits, insertion_logits
from libragrad_lightning.perturbation.ranking import deletion_ranks, tie_breakers


class KeptPatches:
    """An operator whose "logits" are the patches that are left."""

    name, shortens = "kept", False

    def begin(self, model, images):
        return lambda rows, kept, count: kept.double()


def patches_of(scores):
    """Return what has as many patches as there are scores, and nothing else of a model."""
    grid = tuple(scores.shape[1:])
    return SimpleNamespace(grid=lambda images: grid if len(grid) == 2 else (1, *grid))


def images_of(count, seed=0, size=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator).to(dtype)


def orders(images, scores):
    """Return how many patches go before each one `[B, N]`, most and least influential first."""
    patches = scores.flatten(1).shape[1]
    levels = [k / patches for k in range(patches + 1)]
    found = deletion_logits(
        patches_of(scores), images, {"a": scores}, levels, perturbation=KeptPatches()
    )["a"]
    kept = (found.most_influential_first, found.least_influential_first)
    return tuple(k.sum(1).long() - 1 for k in kept)


@st.composite
def tied_scores(draw):
    patches = draw(st.integers(1, 9))
    values = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 1e-300, 2.0, math.inf])
    rows = draw(st.lists(st.lists(values, min_size=patches, max_size=patches), min_size=1))
    return torch.tensor(rows, dtype=torch.float64)


@settings(deadline=None, max_examples=100)
@given(scores=tied_scores(), seed=st.integers(0, 2**31))
def test_an_order_follows_the_scores_and_its_reverse_is_the_other(scores, seed):
    most, least = orders(images_of(len(scores), seed), scores)
    patches = scores.shape[1]
    assert torch.equal(most.sort(1).values, torch.arange(patches).expand_as(most))
    assert torch.equal(least, patches - 1 - most)
    ranked = torch.empty_like(scores).scatter_(1, most, scores)
    assert bool((ranked[:, :-1] >= ranked[:, 1:]).all())


@settings(deadline=None, max_examples=50)
@given(patches=st.integers(1, 40), batch=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_without_ties_an_order_is_that_of_the_scores_alone(patches, batch, seed):
    generator = np.random.default_rng(seed)
    scores = np.stack([generator.permutation(patches) for _ in range(batch)])
    most, _ = orders(images_of(batch, seed), torch.from_numpy(scores).float())
    np.testing.assert_array_equal(most, patches - 1 - scores)


@settings(deadline=None, max_examples=50)
@given(scores=tied_scores(), seed=st.integers(0, 2**31), chunk=st.integers(1, 3))
def test_an_image_does_not_depend_on_its_company(scores, seed, chunk):
    images = images_of(len(scores), seed)
    together = orders(images, scores)
    there = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
    moved = orders(images[there], scores[there])
    apart = [orders(*parts) for parts in zip(images.split(chunk), scores.split(chunk), strict=True)]
    for i, found in enumerate(together):
        assert torch.equal(moved[i], found[there])
        assert torch.equal(torch.cat([part[i] for part in apart]), found)


@pytest.mark.parametrize("patches", [9, 196])
def test_ties_are_broken_as_drawn_also_among_many_patches(patches):
    images = images_of(2)
    ties = tie_breakers(images, patches)
    scores = torch.zeros(2, patches)
    scores[1, ::2] = 1
    most, least = deletion_ranks(scores, ties)
    expected = [
        sorted(ties[i].tolist(), key=lambda patch, i=i: -float(scores[i, patch])) for i in range(2)
    ]
    assert most.argsort(dim=1).tolist() == expected
    assert least.argsort(dim=1).tolist() == [order[::-1] for order in expected]


def test_the_draw_is_that_of_the_pixels_whatever_their_precision_and_layout():
    images = images_of(3, dtype=torch.float16)
    expected = tie_breakers(images, 16)
    for same in (
        images.double(),
        images.float().contiguous(memory_format=torch.channels_last),
        images.float().transpose(2, 3).contiguous().transpose(2, 3),
        images[:1].expand(3, -1, -1, -1).clone().copy_(images),
    ):
        assert torch.equal(tie_breakers(same, 16), expected)
    changed = images.clone()
    changed[1, 0, 0, 0] += 0.01
    differs = (tie_breakers(changed, 16) != expected).any(1)
    assert differs.tolist() == [False, True, False]


def test_images_of_few_values_have_draws_of_their_own():
    # Powers of two end in zeros, which a weak hash would lose: all 512 images of nine black or
    # white pixels, and of nine pixels of 1 or 2.
    bits = (torch.arange(512)[:, None] >> torch.arange(9)) & 1
    for low, high in ((0.0, 1.0), (1.0, 2.0)):
        images = (low + (high - low) * bits).view(512, 1, 3, 3)
        assert len({tuple(order) for order in tie_breakers(images, 64).tolist()}) == 512


def test_all_orders_of_ties_are_equally_likely():
    drawn = tie_breakers(images_of(12_000, size=2), 4)
    counts = Counter(map(tuple, drawn.tolist()))
    assert set(counts) == set(permutations(range(4)))
    squares = sum((count - 500) ** 2 / 500 for count in counts.values())
    assert squares < 49.7  # the quantile 0.999 of chi-squared with 23 degrees of freedom


def test_the_draws_of_neighboring_images_have_nothing_in_common():
    images = images_of(1, size=16).expand(400, -1, -1, -1).clone()
    images[:, 0, 0, 0] += torch.arange(400) / 256  # nothing else differs
    drawn = tie_breakers(images, 64).double()
    correlations = torch.corrcoef(drawn)[torch.triu_indices(400, 400, 1).unbind()]
    assert abs(correlations.mean()) < 4 / 400
    assert correlations.std() == pytest.approx(63**-0.5, rel=0.1)


def test_all_maps_of_an_image_share_one_draw():
    images = images_of(4)
    scores = {"zero": torch.zeros(4, 9), "one": torch.ones(4, 3, 3), "a": torch.randn(4, 9)}
    model = patches_of(scores["one"])
    found = deletion_logits(model, images, scores, perturbation=KeptPatches())
    assert torch.equal(found["zero"].most_influential_first, found["one"].most_influential_first)
    assert not torch.equal(found["zero"].most_influential_first, found["a"].most_influential_first)


def looks_at_the_upper_half():
    """Return a model that finds its class while more of its upper half is there than half."""
    pixels = nn.Identity()

    def forward(images):
        seen = (pixels(images) != 0).float().mean(1).unflatten(1, (2, -1))[:, 0].mean((1, 2))
        return torch.stack([seen - 0.5, 0.5 - seen], dim=1)

    return TokenModel(forward, (Level((Point(pixels),), (Axes.CHANNELS_FIRST,)),), (pixels,))


def gains(images, scores, model):
    found = deletion_logits(model, images, {"a": scores}, perturbation="pixels_zero")["a"]
    return SymmetricRelevanceGain(len(LEVELS)), (
        found.most_influential_first,
        found.least_influential_first,
        torch.zeros(len(images), dtype=torch.long),
    )


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, math.inf])
def test_constant_maps_have_no_gain_on_average(value):
    images = images_of(400, seed=1).abs() + 0.1
    metric, (most, least, target) = gains(
        images, torch.full((400, 8, 8), value), looks_at_the_upper_half()
    )
    per_image = torch.stack([metric(most[i : i + 1], least[i : i + 1], target[:1])
                             for i in range(400)])  # fmt: skip
    error = per_image.std() / 20
    assert 0 < error < 0.05
    assert abs(per_image.mean()) < 3 * error
    # By position, every image had the same gain.
    by_place = -torch.arange(64.0).view(8, 8).expand(4, -1, -1)
    metric, arguments = gains(images[:4], by_place, looks_at_the_upper_half())
    assert metric(*arguments) > 0.3


def test_maps_with_nan_have_no_ranking_and_no_logits():
    images = images_of(4)
    scores = torch.randn(4, 9)
    spoilt = scores.clone()
    spoilt[1, 3] = math.nan
    for curve in (deletion_logits, insertion_logits):
        found = curve(
            patches_of(scores), images, {"a": spoilt, "b": scores}, perturbation=KeptPatches()
        )
        alone = curve(patches_of(scores), images, {"a": scores}, perturbation=KeptPatches())["a"]
        for order in ("most_influential_first", "least_influential_first"):
            left, expected = getattr(found["a"], order), getattr(alone, order)
            assert left[1].isnan().all()
            assert torch.equal(left[[0, 2, 3]], expected[[0, 2, 3]])
            assert torch.equal(getattr(found["b"], order), expected)


def test_metrics_count_maps_with_nan_as_invalid():
    model = timm.create_model("test_vit", num_classes=3).eval()
    images = images_of(3, size=160)
    read = read_token_model(model, images)
    scores = torch.randn(3, 10, 10)
    scores[2, 0, 0] = math.nan
    found = deletion_logits(read, images, {"a": scores})["a"]
    metric = SymmetricRelevanceGain(len(LEVELS))
    metric.update(
        found.most_influential_first, found.least_influential_first, torch.tensor([0, 1, 2])
    )
    assert (metric.num_samples, metric.num_invalid) == (2, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_scores_of_every_type_are_ranked(dtype):
    scores = torch.tensor([[3, 1, 3, 2]], dtype=dtype)
    ties = torch.tensor([[2, 3, 1, 0]])
    most, least = deletion_ranks(scores, ties)
    assert most.tolist() == [[1, 3, 0, 2]]
    assert least.tolist() == [[2, 0, 3, 1]]


@pytest.mark.gpu
def test_devices_draw_the_same_ties():
    images, scores = images_of(5, size=64), torch.randn(5, 49).round()
    ties = tie_breakers(images, 49)
    on_device = tie_breakers(images.cuda(), 49)
    assert torch.equal(on_device.cpu(), ties)
    for found, expected in zip(
        deletion_ranks(scores.cuda(), on_device), deletion_ranks(scores, ties), strict=True
    ):
        assert torch.equal(found.cpu(), expected)
