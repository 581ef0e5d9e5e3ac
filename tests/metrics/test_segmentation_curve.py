"""Precision at recalls: the curve under which the average precision is the area."""

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_curve

from libragrad_lightning.metrics import ConfidenceInterval, SegmentationAP
from libragrad_lightning.metrics.functional import (
    segmentation_average_precision,
    segmentation_precision,
)
from libragrad_lightning.metrics.functional.maps import read_masked_maps
from libragrad_lightning.metrics.functional.ranked_pixels import thresholds
from libragrad_lightning.metrics.functional.segmentation_curve import (
    _on_device,
    precision_and_average,
)

RECALLS = (0.0, 0.1, 0.15, 0.5, 0.95, 1.0)


def example(seed, shape=(3, 6, 7)):
    generator = torch.Generator().manual_seed(seed)
    maps = (6 * torch.rand(shape, generator=generator)).round() / 6  # with many equal values
    mask = torch.rand(shape, generator=generator) > 0.6
    return maps, mask, torch.rand(shape, generator=generator) > 0.8


def of_scikit_learn(scores, positive, recall):
    precisions, recalls, _ = precision_recall_curve(positive, scores)
    # Thresholds rise: the last that still has so much recall is the highest one.
    return precisions[:-1][recalls[:-1] >= max(recall - 1e-9, 1e-6)][-1]


@pytest.mark.parametrize("seed", range(20))
def test_equals_scikit_learn_and_the_way_of_a_device(seed):
    maps, mask, ignore = example(seed)
    found = segmentation_precision(maps, mask, RECALLS, ignore)
    for row in range(3):
        counted = ~ignore[row]
        expected = [
            of_scikit_learn(maps[row][counted].numpy(), mask[row][counted].numpy(), recall)
            for recall in RECALLS
        ]
        np.testing.assert_allclose(found[row], expected)
    read = read_masked_maps(maps, mask, ignore)
    both = precision_and_average(maps, mask, ignore, RECALLS)
    torch.testing.assert_close(_on_device(read, thresholds(read), RECALLS), both)
    torch.testing.assert_close(both[0], segmentation_average_precision(maps, mask, ignore))


def test_images_without_an_object_and_maps_that_are_not_finite_have_no_curve():
    maps, mask, _ = example(0)
    mask[1], maps[2, 0, 0] = False, float("nan")
    found = segmentation_precision(maps, mask, RECALLS)
    assert found[0].isfinite().all()
    assert found[1:].isnan().all()
    with pytest.raises(ValueError, match="rising numbers"):
        segmentation_precision(maps, mask, (0.5, 0.5))


def test_the_metric_has_the_curve_beside_its_value():
    maps, mask, ignore = example(1, (9, 16, 16))
    metric = SegmentationAP()
    metric.update(maps[:4], mask[:4], ignore[:4])
    metric.update(maps[4:], mask[4:], ignore[4:])
    expected = segmentation_precision(maps, mask, metric.recalls, ignore).mean(0)
    torch.testing.assert_close(metric.curve(), expected)
    average = segmentation_average_precision(maps, mask, ignore).mean()
    torch.testing.assert_close(metric.compute(), average)
    assert float(metric.curve().mean()) == pytest.approx(float(average), abs=0.02)


def test_the_interval_is_that_of_the_value_and_not_of_the_curve():
    maps, mask, _ = example(2, (30, 8, 8))
    metric = ConfidenceInterval(SegmentationAP())
    found = metric(maps, mask)
    values = segmentation_average_precision(maps, mask)
    assert float(found["value"]) == pytest.approx(float(values.mean()))
    spread = 2 * 1.96 * float(values.std()) / 30**0.5
    assert float(found["upper"] - found["lower"]) == pytest.approx(spread, rel=0.2)


def test_what_was_added_last_is_there_for_each_image():
    maps, mask, _ = example(3)
    mask[1] = False
    metric = SegmentationAP()
    assert metric.latest is None
    metric.update(maps, mask)
    values = segmentation_average_precision(maps, mask)
    torch.testing.assert_close(metric.latest[:, 0], values, equal_nan=True)
    metric.update(maps[:1], mask[:1])
    assert metric.latest.shape == (1, 21)
