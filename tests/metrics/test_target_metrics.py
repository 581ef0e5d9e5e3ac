"""Maps of one class beside its object and another one."""

import math

import pytest
import torch

from libragrad_lightning.metrics import TargetDiscrimination, TargetShare
from libragrad_lightning.metrics.functional import (
    class_discrimination,
    segmentation_average_precision,
    target_discrimination,
    target_share,
)

METRICS = [TargetDiscrimination, TargetShare]


def two_objects(count=5, side=6):
    generator = torch.Generator().manual_seed(0)
    attribution = torch.randn(count, side, side, generator=generator, dtype=torch.float64)
    masks = torch.rand(2, count, side, side, generator=generator) > 0.6
    return attribution, *masks


def test_discrimination_is_what_one_object_has_more_of_average_precision():
    attribution, mask, other = two_objects()
    ignore = torch.zeros_like(mask)
    ignore[:, :2] = True
    for given, left_out in ((None, mask & other), (ignore, mask & other | ignore)):
        ap = [segmentation_average_precision(attribution, m, left_out) for m in (mask, other)]
        found = target_discrimination(attribution, mask, other, given)
        torch.testing.assert_close(found, ap[0] - ap[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(
        target_discrimination(attribution, other, mask),
        -target_discrimination(attribution, mask, other),
    )


def test_the_mean_over_both_classes_is_class_discrimination():
    first, mask, other = two_objects()
    second = torch.randn_like(first)
    together = class_discrimination(torch.stack([first, second], 1), torch.stack([mask, other], 1))
    metric = TargetDiscrimination()
    metric.update(first, mask, other)
    metric.update(second, other, mask)
    assert float(metric.compute()) == pytest.approx(float(together.mean()))


def test_the_share_counts_what_is_positive_on_one_object_alone():
    attribution = torch.tensor([[[3.0, 1.0, -5.0, 7.0, 2.0]]])
    mask = torch.tensor([[[True, False, True, True, False]]])
    other = torch.tensor([[[False, True, False, True, False]]])
    assert target_share(attribution, mask, other).item() == 0.75
    ignore = torch.tensor([[[True, False, False, False, False]]])
    assert target_share(attribution, mask, other, ignore).item() == 0.0
    assert target_share(-attribution.abs(), mask, other).isnan().item()


@pytest.mark.parametrize("metric", METRICS)
def test_both_objects_and_a_map_are_needed(metric):
    attribution, mask, other = two_objects()
    other[0] = mask[0]  # nothing is left beside the overlap
    mask[1] = False
    attribution[2] = 1
    attribution[3, 0, 0] = math.nan
    mask[3, 0, 0] = True
    other[3, 0, 0] = False
    counted = metric()
    counted.update(attribution, mask, other)
    assert (counted.num_skipped, counted.num_constant, counted.num_invalid) == (2, 1, 1)
    assert counted.num_samples == 1


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("mask", "other", "message"),
    [
        (torch.zeros(1, 2, 4, 4).bool(), torch.zeros(1, 4, 4).bool(), r"`mask` to have shape"),
        (torch.zeros(1, 4, 4).bool(), torch.zeros(1, 4, 4), r"`other_mask` to be a boolean tensor"),
        (torch.zeros(1, 4, 4).bool(), torch.zeros(1, 4, 5).bool(), r"to match `mask` but"),
    ],
)
def test_bad_masks(metric, mask, other, message):
    with pytest.raises(ValueError, match=message):
        metric().update(torch.rand(1, 4, 4), mask, other)
