"""What is measured is what the metrics say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from libragrad_lightning import metrics
from libragrad_lightning.attribution import Explanation
from libragrad_lightning.audit.metric_inputs import MetricInputs
from libragrad_lightning.audit.metric_table import METRICS
from libragrad_lightning.backward import LIBRA
from libragrad_lightning.perturbation import DeletionLogits

LEVELS = (0.1, 0.4, 0.9)
IMAGES, CLASSES = 5, 4


@pytest.fixture
def inputs():
    maps = torch.randn(IMAGES, 6, 6, dtype=torch.float64)
    nothing = torch.zeros(IMAGES, 0)
    explanation = Explanation(
        rules=LIBRA,
        attribution=maps,
        prefix=nothing,
        token_biases=nothing,
        image_biases=nothing,
        logit_sums=torch.randn(2, IMAGES),
        logits=torch.randn(IMAGES, CLASSES),
        target=torch.randint(0, CLASSES, (IMAGES,)),
    )
    logits = torch.randn(2, IMAGES, len(LEVELS), CLASSES)
    masks = torch.rand(IMAGES, 12, 12) > 0.5
    previous = maps + torch.randn_like(maps)
    return MetricInputs(
        explanation=explanation,
        informative=torch.ones(IMAGES, dtype=torch.bool),
        masks=masks,
        deletion=DeletionLogits(*logits, "tokens"),
        previous=previous,
    )


def measured(name, inputs):
    entry = METRICS[name]
    metric = entry.create(LEVELS, "multiclass")
    entry.update(metric, inputs)
    return entry.value(metric)


def probabilities(logits, target):
    exponentials = np.exp(logits.double().numpy())
    shares = exponentials / exponentials.sum(-1, keepdims=True)
    return np.stack([shares[i, :, t] for i, t in enumerate(target.tolist())])


def area(curve, fractions):
    steps = np.diff(fractions)
    return float((steps * (curve[1:] + curve[:-1]) / 2).sum() / (fractions[-1] - fractions[0]))


def test_areas_under_deletion_and_insertion_curves(inputs):
    target, logits = inputs.explanation.target, inputs.deletion
    deleted = probabilities(logits.most_influential_first, target).mean(0)
    assert measured("deletion_auc", inputs) == pytest.approx(area(deleted, np.array(LEVELS)))
    # Inserting the most influential share s leaves what deleting the least influential 1 - s does.
    left = probabilities(logits.least_influential_first, target).mean(0)
    inserted, shares = left[::-1], 1 - np.array(LEVELS)[::-1]
    assert measured("insertion_auc", inputs) == pytest.approx(area(inserted, shares))


def test_drops_of_log_probability(inputs):
    explanation = inputs.explanation
    intact = np.log(probabilities(explanation.logits[:, None], explanation.target))
    for name, logits in (
        ("mif_log_odds_drop", inputs.deletion.most_influential_first),
        ("lif_log_odds_drop", inputs.deletion.least_influential_first),
    ):
        masked = np.log(probabilities(logits, explanation.target))
        assert measured(name, inputs) == pytest.approx((intact - masked).mean(), abs=1e-6)


def test_maps_are_brought_to_the_size_of_their_masks(inputs):
    wide = replace(inputs, masks=torch.zeros(IMAGES, 12, 9, dtype=torch.bool))
    torch.testing.assert_close(wide.heatmaps, inputs.explanation.heatmap((12, 9)))
    assert replace(inputs, masks=None).heatmaps is None


def test_drift(inputs):
    first, second = (
        m.flatten(1).numpy() for m in (inputs.explanation.attribution, inputs.previous)
    )
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    assert measured("drift_cosine", inputs) == pytest.approx(
        1 - ((first * second).sum(1) / norms).mean()
    )
    ranks = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    assert measured("drift_rank", inputs) == pytest.approx(1 - np.mean(ranks))
    assert 0 < measured("drift_ssim", inputs) < 2


def test_maps_that_have_not_moved_have_no_drift(inputs):
    same = replace(inputs, previous=inputs.explanation.attribution)
    for name in ("drift_cosine", "drift_rank", "drift_ssim"):
        assert measured(name, same) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("segmentation_ap", metrics.SegmentationAP),
        ("segmentation_max_f1", metrics.SegmentationMaxF1),
        ("mask_iou", metrics.MaskIoU),
        ("pixel_accuracy", metrics.PixelAccuracy),
        ("pointing_game", metrics.PointingGame),
        ("relevance_rank_accuracy", metrics.RelevanceRankAccuracy),
        ("energy_inside", metrics.EnergyInside),
    ],
)
def test_metrics_beside_masks_look_at_the_upsampled_map(inputs, name, metric):
    expected = metric()(inputs.explanation.heatmap((12, 12)), inputs.masks)
    assert measured(name, inputs) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("class_discrimination", metrics.TargetDiscrimination),
        ("target_share", metrics.TargetShare),
    ],
)
def test_metrics_beside_two_masks_look_at_both(inputs, name, metric):
    others = torch.rand(IMAGES, 12, 12) > 0.5
    expected = metric()(inputs.explanation.heatmap((12, 12)), inputs.masks, others)
    assert measured(name, replace(inputs, other_masks=others)) == pytest.approx(float(expected))
    with pytest.warns(UserWarning, match="was called before the ``update`` method"):
        assert np.isnan(measured(name, inputs))


def test_the_share_of_maps_that_explain_nothing(inputs):
    inputs.explanation.attribution[:2] = 1.0
    assert measured("degenerate_rate", inputs) == pytest.approx(0.4)


def test_maps_that_are_the_same_everywhere_are_not_scored(inputs):
    few = inputs.explanation
    few = replace(
        few, attribution=few.attribution[1:], logits=few.logits[1:], target=few.target[1:]
    )
    deletion = inputs.deletion
    expected = MetricInputs(
        explanation=few,
        informative=torch.ones(IMAGES - 1, dtype=torch.bool),
        masks=inputs.masks[1:],
        deletion=DeletionLogits(
            deletion.most_influential_first[1:], deletion.least_influential_first[1:], "tokens"
        ),
    )
    inputs.explanation.attribution[0] = 1.0
    found = replace(inputs, informative=torch.arange(IMAGES) > 0)
    for name, entry in METRICS.items():
        if entry.needs in ("deletion", "masks"):
            assert measured(name, found) == pytest.approx(measured(name, expected)), name
