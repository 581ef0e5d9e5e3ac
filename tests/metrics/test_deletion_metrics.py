import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import CLASSES, LEVELS, draw

from libragrad_lightning.metrics import (
    AOPC,
    DeletionAccuracy,
    DeletionAccuracyDrop,
    LogOddsDrop,
    SymmetricRelevanceGain,
)
from libragrad_lightning.metrics.functional import (
    deletion_accuracy_curve,
    deletion_log_odds_drop,
    deletion_probability_drop,
    symmetric_relevance_gain,
)

torch.set_num_threads(1)


def probability(logits, label):
    weights = np.exp(logits - logits.max())
    return weights[label] / weights.sum()


def reference(logits, mif, lif, target):
    """Return the five metrics by a loop over samples and levels."""
    samples, levels, _ = mif.shape
    kept = {"mif": 0, "lif": 0}
    drop = log_drop = 0.0
    for sample in range(samples):
        label = target[sample]
        before = probability(logits[sample], label)
        for level in range(levels):
            kept["mif"] += np.argmax(mif[sample, level]) == label
            kept["lif"] += np.argmax(lif[sample, level]) == label
            after = probability(mif[sample, level], label)
            drop += before - after
            log_drop += np.log(before / after)
    cells = samples * levels
    return {
        "lif_accuracy": kept["lif"] / cells,
        "mif_accuracy_drop": 1 - kept["mif"] / cells,
        "aopc": drop / cells,
        "log_odds": log_drop / cells,
        "srg": (kept["lif"] - kept["mif"]) / cells,
    }


@settings(deadline=None, max_examples=50)
@given(
    samples=st.integers(1, 6),
    levels=st.integers(1, 5),
    classes=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
def test_metrics_equal_the_loop(samples, levels, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    mif, lif = 3 * torch.randn(
        2, samples, levels, classes, generator=generator, dtype=torch.float64
    )
    target = torch.randint(classes, (samples,), generator=generator)
    found = {
        "lif_accuracy": DeletionAccuracy(levels)(lif, target),
        "mif_accuracy_drop": DeletionAccuracyDrop(levels)(mif, target),
        "aopc": AOPC(levels)(logits, mif, target),
        "log_odds": LogOddsDrop(levels)(logits, mif, target),
        "srg": SymmetricRelevanceGain(levels)(mif, lif, target),
    }
    expected = reference(logits.numpy(), mif.numpy(), lif.numpy(), target.numpy())
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, abs=1e-12), name


def test_functions_give_one_value_per_sample_and_level():
    batch = draw(5)
    logits, masked, target = batch["logits"], batch["masked_logits"], batch["target"]
    for sample in range(5):
        label = target[sample]
        intact = logits[sample].softmax(-1)[label]
        for level in range(LEVELS):
            left = masked[sample, level].softmax(-1)[label]
            cell = (sample, level)
            correct = masked[sample, level].argmax() == label
            assert deletion_accuracy_curve(masked, target)[cell] == correct
            drop = deletion_probability_drop(logits, masked, target)[cell]
            torch.testing.assert_close(drop, intact - left, rtol=0, atol=1e-12)
            log_drop = deletion_log_odds_drop(logits, masked, target)[cell]
            torch.testing.assert_close(log_drop, (intact / left).log(), rtol=0, atol=1e-12)


def test_perfect_and_reversed_rankings_bound_the_relevance_gain():
    right = torch.tensor([2.0, 0.0]).expand(3, LEVELS, 2)
    wrong, target = -right, torch.zeros(3, dtype=torch.long)
    assert SymmetricRelevanceGain(LEVELS)(mif_logits=wrong, lif_logits=right, target=target) == 1
    assert SymmetricRelevanceGain(LEVELS)(mif_logits=right, lif_logits=wrong, target=target) == -1
    assert SymmetricRelevanceGain(LEVELS)(mif_logits=right, lif_logits=right, target=target) == 0


def test_log_odds_do_not_underflow():
    logits = torch.tensor([[0.0, -2000.0]])
    masked_logits = torch.tensor([[[-2000.0, 0.0]]])
    assert LogOddsDrop(1)(logits, masked_logits, torch.tensor([0])) == 2000


def test_of_equal_logits_the_lowest_class_is_predicted():
    masked_logits = torch.zeros(3, 1, 3)
    assert deletion_accuracy_curve(masked_logits, torch.arange(3)).tolist() == [[1.0], [0.0], [0.0]]


def test_only_the_levels_with_a_non_finite_logit_are_nan():
    batch = draw(2)
    masked = batch["masked_logits"]
    masked[1, 2, 0] = torch.inf
    expected = torch.zeros(2, LEVELS, dtype=torch.bool)
    expected[1, 2] = True
    target = batch["target"]
    for found in (
        deletion_accuracy_curve(masked, target),
        deletion_probability_drop(batch["logits"], masked, target),
        deletion_log_odds_drop(batch["logits"], masked, target),
        symmetric_relevance_gain(masked, batch["lif_logits"], target),
    ):
        assert torch.equal(found.isnan(), expected)


def test_a_sample_with_one_non_finite_level_leaves_the_whole_curve():
    batch = draw(3)
    masked, target = batch["masked_logits"], batch["target"]
    spoilt = masked.clone()
    spoilt[0, 1, 0] = torch.nan
    metric, reference_metric = DeletionAccuracy(LEVELS), DeletionAccuracy(LEVELS)
    metric.update(spoilt, target)
    reference_metric.update(masked[1:], target[1:])
    assert torch.equal(metric.curve(), reference_metric.curve())


@pytest.mark.parametrize("num_levels", [0, -1, 2.0, "9"])
def test_number_of_levels_must_be_a_positive_integer(num_levels):
    with pytest.raises(
        ValueError, match=r"Expected argument `num_levels` to be a positive integer but got "
    ):
        DeletionAccuracy(num_levels)


def test_number_of_levels_must_fit_the_logits():
    metric = DeletionAccuracy(LEVELS + 1)
    batch = draw(2)
    with pytest.raises(
        ValueError, match=r"Expected logits at 5 deletion levels, .* `num_levels` says, but got 4\."
    ):
        metric.update(batch["masked_logits"], batch["target"])
    assert metric.num_samples == 0


BAD_TARGETS = [
    pytest.param(
        torch.tensor([0, CLASSES]),
        r"Expected argument `target` to hold class indices from 0 to 2 but got values from 0 to 3",
        id="too_large",
    ),
    pytest.param(
        torch.tensor([-1, 1]),
        r"Expected argument `target` to hold class indices from 0 to 2 but got values from -1 to 1",
        id="negative",
    ),
    pytest.param(
        torch.tensor([0.0, 1.0]),
        r"Expected argument `target` to be an integer tensor .* but got torch\.float32",
        id="float",
    ),
    pytest.param(
        torch.tensor([True, False]),
        r"Expected argument `target` to be an integer tensor .* but got torch\.bool",
        id="bool",
    ),
    pytest.param(
        torch.tensor([0, 1, 1]),
        r"Expected argument `target` to have shape \[2\] to match `.*logits` but got \[3\]",
        id="length",
    ),
    pytest.param(
        torch.tensor([[0], [1]]),
        r"Expected argument `target` to have shape \[2\] to match `.*logits` but got \[2, 1\]",
        id="one_column",
    ),
]


@pytest.mark.parametrize(("target", "message"), BAD_TARGETS)
def test_bad_targets(target, message):
    batch = draw(2)
    masked = batch["masked_logits"]
    with pytest.raises(ValueError, match=message):
        DeletionAccuracy(LEVELS).update(masked, target)
    with pytest.raises(ValueError, match=message):
        AOPC(LEVELS).update(batch["logits"], masked, target)
    with pytest.raises(ValueError, match=message):
        LogOddsDrop(LEVELS).update(batch["logits"], masked, target)
    with pytest.raises(ValueError, match=message):
        SymmetricRelevanceGain(LEVELS).update(masked, masked, target)


@pytest.mark.parametrize(
    ("masked_logits", "message"),
    [
        pytest.param(
            torch.zeros(2, CLASSES),
            r"`masked_logits` to have shape \[B, S, C\] but got \[2, 3\]",
            id="two_dimensions",
        ),
        pytest.param(
            torch.zeros(0, LEVELS, CLASSES),
            r"`masked_logits` to hold at least one value but got shape \[0, 4, 3\]",
            id="no_sample",
        ),
        pytest.param(
            torch.zeros(2, LEVELS, CLASSES, dtype=torch.long),
            r"`masked_logits` to be a floating point tensor but got torch\.int64",
            id="integers",
        ),
    ],
)
def test_bad_masked_logits(masked_logits, message):
    target = torch.zeros(len(masked_logits), dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        deletion_accuracy_curve(masked_logits, target)
    with pytest.raises(ValueError, match=message):
        deletion_probability_drop(torch.zeros(2, CLASSES), masked_logits, target)
    with pytest.raises(ValueError, match=message.replace("masked", "lif")):
        symmetric_relevance_gain(torch.zeros(2, LEVELS, CLASSES), masked_logits, target)


@pytest.mark.parametrize("shape", [(3, LEVELS, CLASSES), (2, LEVELS, CLASSES + 1)])
def test_masked_logits_must_fit_the_intact_ones(shape):
    message = rf"`masked_logits` to have shape \[2, 4, 3\] to match `logits` but got \[{shape[0]}, "
    with pytest.raises(ValueError, match=message):
        deletion_log_odds_drop(torch.zeros(2, CLASSES), torch.zeros(shape), torch.zeros(2).long())


def test_a_gain_of_an_unknown_score_is_refused():
    logits, target = torch.zeros(2, LEVELS, CLASSES), torch.zeros(2).long()
    with pytest.raises(ValueError, match=r"`score` to be one of .* but got 'loss'"):
        symmetric_relevance_gain(logits, logits, target, score="loss")


def test_lif_logits_must_fit_the_mif_ones():
    mif, lif = torch.zeros(2, LEVELS, CLASSES), torch.zeros(2, LEVELS - 1, CLASSES)
    message = r"`lif_logits` to have shape \[2, 4, 3\] to match `mif_logits` but got \[2, 3, 3\]"
    with pytest.raises(ValueError, match=message):
        symmetric_relevance_gain(mif, lif, torch.zeros(2).long())
