import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from libragrad_lightning.metrics import (
    ClassDiscrimination,
    DegenerateMapRate,
    MapCosineSimilarity,
    MapRankCorrelation,
    MapStructuralSimilarity,
)
from libragrad_lightning.metrics.functional import (
    class_discrimination,
    map_cosine_similarity,
    map_rank_correlation,
    map_structural_similarity,
    segmentation_average_precision,
)

torch.set_num_threads(1)
METRICS = [MapCosineSimilarity, MapRankCorrelation, MapStructuralSimilarity]
every_metric = pytest.mark.parametrize("metric", METRICS)


def maps(count=3, side=13):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, count, side, side, generator=generator, dtype=torch.float64)
    return noise[0], noise[0] + noise[1]


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(
        np.float64, (2, 2, 2, 5), elements=st.sampled_from([-1.0, 0.0, 0.5]) | st.floats(-9, 9)
    )
)
def test_rank_correlation_equals_scipy(pair):
    found = map_rank_correlation(*torch.from_numpy(pair))
    for value, first, second in zip(found, *pair, strict=True):
        if np.ptp(first) == 0 or np.ptp(second) == 0:
            assert value.isnan()
        else:
            expected = spearmanr(first.ravel(), second.ravel()).statistic
            assert value.item() == pytest.approx(expected, abs=1e-12)


def test_cosine_equals_numpy_at_any_scale():
    first, second = maps()
    for scale in (1e-200, 1.0, 1e200):
        found = map_cosine_similarity(scale * first, second)
        for value, a, b in zip(found, first.numpy(), second.numpy(), strict=True):
            expected = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
            assert value.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_structural_similarity_equals_scikit_image(sigma):
    first, second = maps()
    found = map_structural_similarity(first, second, sigma)
    reach = int(3.5 * sigma + 0.5)
    for value, *pair in zip(found, first.numpy(), second.numpy(), strict=True):
        # scikit-image leaves out a border as wide as the window, which is added here.
        padded = [np.pad(a / np.abs(a).max(), reach, mode="reflect") for a in pair]
        expected = structural_similarity(
            *padded, gaussian_weights=True, sigma=sigma, use_sample_covariance=False, data_range=2.0
        )
        assert value.item() == pytest.approx(expected, abs=1e-12)


@every_metric
def test_scale_does_not_matter_and_sign_does(metric):
    first, second = maps()
    value = metric()(first, second)
    assert metric()(3 * first, 0.1 * second).item() == pytest.approx(value.item(), abs=1e-12)
    assert metric()(first, first).item() == pytest.approx(1, abs=1e-12)
    assert metric()(first, -second) < value


@every_metric
def test_pairs_that_cannot_be_compared_are_counted_by_reason(metric):
    first, second = maps(count=5)
    first[0], second[1] = 0, -2
    first[2, 0, 0], second[3, 1, 1] = math.nan, math.inf
    counted = metric()
    value = counted(first, second)
    assert (counted.num_constant, counted.num_invalid, counted.num_samples) == (2, 2, 1)
    torch.testing.assert_close(value, metric()(first[4:], second[4:]), rtol=0, atol=1e-12)


@every_metric
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (torch.zeros(2, 9), torch.zeros(2, 9), r"`attribution` to have shape \[B, H, W\] but got"),
        (
            torch.zeros(2, 9, 9),
            torch.zeros(1, 9, 9),
            r"`reference` to have shape \[2, 9, 9\] to match `attribution` but got \[1, 9, 9\]",
        ),
        (torch.zeros(2, 9, 9), torch.zeros(2, 9, 9).int(), r"`reference` to be a floating point"),
    ],
)
def test_bad_maps(metric, first, second, message):
    with pytest.raises(ValueError, match=message):
        metric().update(first, second)


def test_windows_have_to_fit():
    with pytest.raises(ValueError, match=r"larger than the 5 pixels .* `sigma=1.5` .* \[5, 9\]"):
        MapStructuralSimilarity().update(torch.zeros(1, 5, 9), torch.zeros(1, 5, 9))
    with pytest.raises(ValueError, match=r"`sigma` to be positive but got 0"):
        MapStructuralSimilarity(sigma=0)


def two_classes(count=4, side=6):
    generator = torch.Generator().manual_seed(0)
    attribution = torch.randn(count, 2, side, side, generator=generator, dtype=torch.float64)
    mask = torch.rand(count, 2, side, side, generator=generator) > 0.6
    return attribution, mask


def test_discrimination_equals_four_average_precisions():
    attribution, mask = two_classes()
    ignore = torch.zeros_like(mask[:, 0])
    ignore[:, :2] = True
    for given_ignore, left_out in ((None, mask.all(1)), (ignore, mask.all(1) | ignore)):
        ap = [
            [segmentation_average_precision(a, m, left_out) for m in mask.unbind(1)]
            for a in attribution.unbind(1)
        ]
        expected = (ap[0][0] - ap[0][1] + ap[1][1] - ap[1][0]) / 2
        found = class_discrimination(attribution, mask, given_ignore)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_maps_blind_to_the_class_do_not_discriminate_and_swapped_ones_do_so_wrongly():
    attribution, mask = two_classes()
    blind = attribution[:, :1].expand(-1, 2, -1, -1)
    assert ClassDiscrimination()(blind, mask) == 0
    value = ClassDiscrimination()(attribution, mask)
    assert ClassDiscrimination()(attribution.flip(1), mask).item() == pytest.approx(-value.item())
    assert ClassDiscrimination()(mask.double(), mask) > 0.5


def test_discrimination_needs_both_objects_and_both_maps():
    attribution, mask = two_classes(count=5)
    mask[0, 1] = mask[0, 0]  # nothing is left beside the overlap
    mask[1, 0] = False
    attribution[2, 1] = 1
    attribution[3, 0, ~mask[3].all(dim=0)] = math.nan
    metric = ClassDiscrimination()
    metric.update(attribution, mask)
    assert (metric.num_skipped, metric.num_constant, metric.num_invalid) == (2, 1, 1)
    assert metric.num_samples == 1


@pytest.mark.parametrize(
    ("attribution", "mask", "message"),
    [
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4).bool(), r"maps of 2 classes per image"),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), r"`mask` to be a boolean tensor"),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 5).bool(), r"to match `attribution` but"),
    ],
)
def test_bad_pairs_of_classes(attribution, mask, message):
    with pytest.raises(ValueError, match=message):
        ClassDiscrimination().update(attribution, mask)


def test_degenerate_maps_are_counted_apart():
    attribution = torch.randn(6, 4, 4)
    attribution[0] = 7
    attribution[1], attribution[2, 0, 0] = math.nan, -math.inf
    metric = DegenerateMapRate()
    assert metric(attribution) == 0.5
    assert (metric.num_constant, metric.num_nonfinite, metric.num_samples) == (1, 2, 6)
