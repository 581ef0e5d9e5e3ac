import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import confusion_matrix, jaccard_score, precision_recall_curve

from libragrad_lightning.metrics import (
    EnergyInside,
    MaskIoU,
    PixelAccuracy,
    PointingGame,
    SegmentationAP,
    SegmentationMaxF1,
)
from libragrad_lightning.metrics.functional import (
    energy_inside,
    mask_confusion,
    pointing_hits,
    segmentation_average_precision,
    segmentation_max_f1,
)

torch.set_num_threads(1)
METRICS = [EnergyInside, MaskIoU, PixelAccuracy, PointingGame, SegmentationAP, SegmentationMaxF1]
FUNCTIONS = [
    energy_inside,
    mask_confusion,
    pointing_hits,
    segmentation_average_precision,
    segmentation_max_f1,
]
every_metric = pytest.mark.parametrize("metric", METRICS)
every_function = pytest.mark.parametrize("function", FUNCTIONS)


def images(count=4, height=7, width=9):
    generator = torch.Generator().manual_seed(0)

    def normal():
        return torch.randn(count, height, width, generator=generator, dtype=torch.float64)

    return normal(), normal() > 0.5, normal() > 1


def pixels(attribution, mask, ignore):
    """Yield the pixels that count of one image after the other, as arrays."""
    for a, m, i in zip(attribution.numpy(), mask.numpy(), ignore.numpy(), strict=True):
        yield a[~i], m[~i]


TIED = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0])


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.float64, (2, 3, 5), elements=TIED | st.floats(-9, 9)),
    hnp.arrays(np.bool_, (2, 3, 5)),
)
def test_max_f1_equals_scikit_learn(attribution, mask):
    mask[:, 0, 0] = True
    expected = []
    for scores, positive in zip(attribution, mask, strict=True):
        precision, recall, _ = precision_recall_curve(positive.ravel(), scores.ravel())
        expected.append(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)))
    found = segmentation_max_f1(torch.from_numpy(attribution), torch.from_numpy(mask))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_confusion_and_what_follows_from_it_equal_scikit_learn():
    attribution, mask, ignore = images()
    true, predicted = [], []
    found = mask_confusion(attribution, mask, ignore)
    for counts, (values, positive) in zip(found, pixels(attribution, mask, ignore), strict=True):
        above = values > values.mean()
        np.testing.assert_array_equal(counts, confusion_matrix(positive, above))
        true.append(positive)
        predicted.append(above)
    true, predicted = np.concatenate(true), np.concatenate(predicted)
    iou, accuracy = MaskIoU(), PixelAccuracy()
    for metric in (iou, accuracy):
        metric.update(attribution[:1], mask[:1], ignore[:1])
        metric.update(attribution[1:], mask[1:], ignore[1:])
    expected = jaccard_score(true, predicted, average="macro")
    assert iou.compute().item() == pytest.approx(expected, abs=1e-12)
    assert accuracy.compute().item() == pytest.approx((true == predicted).mean(), abs=1e-12)


def test_a_class_that_is_nowhere_has_no_iou():
    attribution = torch.tensor([[[1.0, 3.0]]])
    ignore = torch.tensor([[[True, False]]])
    full = torch.ones(1, 1, 2, dtype=torch.bool)
    assert MaskIoU()(torch.tensor([[[1.0, 3.0]]]), full) == 0.25
    assert mask_confusion(attribution, full, ignore).tolist() == [[[0.0, 0.0], [1.0, 0.0]]]


def test_energy_equals_numpy():
    attribution, mask, ignore = images()
    expected = [
        np.maximum(values, 0)[positive].sum() / np.maximum(values, 0).sum()
        for values, positive in pixels(attribution, mask, ignore)
    ]
    found = energy_inside(attribution, mask, ignore)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3, 20])
def test_pointing_equals_the_distance_to_the_object(tolerance):
    attribution, mask, ignore = images(count=12)
    mask = mask & (torch.rand(mask.shape) < 0.1)
    mask[:, 0, 0] = ~ignore[:, 0, 0]
    found = pointing_hits(attribution, mask, ignore, tolerance)
    for value, a, m, i in zip(found, attribution, mask & ~ignore, ignore, strict=True):
        place = (a.masked_fill(i, -math.inf) == a[~i].max()).nonzero()[0]
        distances = (m.nonzero() - place).double().norm(dim=1)
        expected = math.nan if len(distances) == 0 else float(distances.min() <= tolerance)
        assert value.item() == pytest.approx(expected, nan_ok=True)


def test_a_shared_maximum_hits_by_the_share_on_the_object():
    attribution = torch.tensor([[[2.0, 2.0, 2.0, 0.0]]])
    mask = torch.tensor([[[True, False, False, True]]])
    assert PointingGame()(attribution, mask).item() == pytest.approx(1 / 3)


@every_function
def test_several_masks_equal_the_masks_apart(function):
    attribution, mask, ignore = images()
    masks = torch.stack([mask, ~mask, torch.zeros_like(mask)], dim=1)
    ignores = torch.stack([ignore, ignore, mask], dim=1)
    for left_out in (None, ignore, ignores):
        found = function(attribution, masks, left_out)
        for number in range(3):
            own = ignores[:, number] if left_out is ignores else left_out
            expected = function(attribution, masks[:, number], own)
            torch.testing.assert_close(found[:, number], expected, rtol=0, atol=0, equal_nan=True)
        assert found[:, 2].isnan().all()


@every_metric
def test_an_image_of_several_masks_is_their_mean_without_the_empty_ones(metric):
    attribution, mask, _ = images(count=1)
    masks = torch.stack([mask, ~mask, torch.zeros_like(mask)], dim=1)
    together, apart = metric(), metric()
    together.update(attribution, masks)
    for number in (0, 1):
        apart.update(attribution, masks[:, number])
    torch.testing.assert_close(together.compute(), apart.compute(), rtol=0, atol=1e-12)
    assert (together.num_samples, apart.num_samples) == (1, 2)


@every_metric
def test_ignored_pixels_do_not_matter(metric):
    attribution, mask, ignore = images()
    changed = torch.where(ignore, torch.nan, attribution), mask ^ ignore
    assert torch.equal(metric()(*changed, ignore), metric()(attribution, mask, ignore))


@every_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_images_that_cannot_be_scored_are_counted_by_reason(metric, dtype):
    attribution, mask, _ = images(count=6)
    attribution = attribution.to(dtype)
    mask[0] = False
    attribution[1] = 0.5
    attribution[2, 3, 3] = math.nan
    attribution[3], mask[3] = 0, False
    counted = metric()
    counted.update(attribution, mask)
    found = (counted.num_skipped, counted.num_constant, counted.num_invalid, counted.num_samples)
    assert found == (2, 1, 1, 2)
    assert torch.equal(counted.compute(), metric()(attribution[4:], mask[4:]))


def test_a_map_that_is_constant_where_it_counts_is_constant():
    metric = SegmentationAP()
    attribution = torch.tensor([[[1.0, 1.0, 5.0]]])
    mask, ignore = torch.tensor([[[True, False, False]]]), torch.tensor([[[False, False, True]]])
    metric.update(attribution, mask, ignore)
    assert (metric.num_constant, metric.num_samples) == (1, 0)
    metric.update(attribution, mask)
    assert (metric.num_constant, metric.num_samples) == (1, 1)


def test_a_map_without_positive_attribution_has_no_energy():
    metric = EnergyInside()
    mask = torch.tensor([[[True, False]]])
    assert metric(torch.tensor([[[-1.0, -2.0]]]), mask).isnan()
    assert metric.num_invalid == 1


@every_metric
def test_full_masks_are_scored(metric):
    attribution, mask, _ = images(count=1)
    found = metric()
    value = found(attribution, torch.ones_like(mask)).item()
    above = (attribution > attribution.mean()).double().mean().item()
    expected = {MaskIoU: above / 2, PixelAccuracy: above}.get(metric, 1.0)
    assert value == pytest.approx(expected, abs=1e-12)
    assert found.num_samples == 1


BOOLEAN = torch.zeros(2, 3, 3, dtype=torch.bool)


@every_metric
@pytest.mark.parametrize(
    ("mask", "ignore", "message"),
    [
        pytest.param(
            BOOLEAN[:, None, :, :2].repeat(1, 4, 1, 1),
            None,
            r"`mask` to have shape \[2, 4, 3, 3\] to match `attribution` but got \[2, 4, 3, 2\]",
            id="several_small_masks",
        ),
        pytest.param(
            BOOLEAN[:, None][:, :0],
            None,
            r"`mask` to hold at least one value but got shape \[2, 0, 3, 3\]",
            id="no_mask",
        ),
        pytest.param(BOOLEAN.float(), None, r"`mask` to be a boolean tensor", id="float_mask"),
        pytest.param(
            BOOLEAN,
            BOOLEAN[:, None],
            r"`ignore` to have shape \[2, 3, 3\] to match `mask` but got \[2, 1, 3, 3\]",
            id="ignore_of_several_masks",
        ),
        pytest.param(BOOLEAN, BOOLEAN.int(), r"`ignore` to be a boolean tensor", id="int_ignore"),
    ],
)
def test_bad_masks(metric, mask, ignore, message):
    with pytest.raises(ValueError, match=f"Expected argument {message}"):
        metric().update(torch.zeros(2, 3, 3), mask, ignore)


@pytest.mark.parametrize("tolerance", [-1, 1.5, True])
def test_bad_tolerance(tolerance):
    with pytest.raises(ValueError, match=r"`tolerance` to be a non-negative number of pixels but"):
        PointingGame(tolerance)
