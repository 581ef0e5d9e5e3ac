"""Every metric over deletion levels, for heads under one sigmoid and under several."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libragrad_lightning.metrics import (
    AOPC,
    DeletionAccuracy,
    DeletionAccuracyDrop,
    DeletionAUC,
    DeletionCurve,
    InsertionAUC,
    InsertionCurve,
    LogOddsDrop,
    SymmetricRelevanceGain,
)
from libragrad_lightning.metrics.functional import target_probability

torch.set_num_threads(1)
every_task = pytest.mark.parametrize("task", ["binary", "multilabel"])
ON_LOGITS = (DeletionAccuracy, DeletionAccuracyDrop, AOPC, LogOddsDrop, SymmetricRelevanceGain)
CURVES = (DeletionCurve, DeletionAUC, InsertionCurve, InsertionAUC)


def drawn(task, samples, levels, seed):
    """Return intact, MIF and LIF logits and targets of a head."""
    generator = np.random.default_rng(seed)
    labels, classes = (1, 2) if task == "binary" else (4, 4)
    intact = 3 * generator.normal(size=(samples, labels))
    most, least = 3 * generator.normal(size=(2, samples, levels, labels))
    return intact, most, least, generator.integers(classes, size=samples)


def probability(task, logits, target):
    """The probability of one target, under its own sigmoid."""
    sign = -1 if task == "binary" and target == 0 else 1
    return 1 / (1 + np.exp(-sign * logits[0 if task == "binary" else target]))


def reference(task, intact, most, least, target):
    """Return the value of every metric by a loop over samples and levels."""
    before = np.array([probability(task, *pair) for pair in zip(intact, target, strict=True)])
    mif, lif = (
        np.array([[probability(task, logits, t) for logits in sample] for sample, t in pairs])
        for pairs in (list(zip(masked, target, strict=True)) for masked in (most, least))
    )
    logit = {name: np.log(p / (1 - p)) for name, p in (("mif", mif), ("lif", lif))}
    return {
        "lif_accuracy": (lif > 0.5).mean(),
        "mif_accuracy_drop": (mif < 0.5).mean(),
        "aopc": (before[:, None] - mif).mean(),
        "log_odds": (np.log(before)[:, None] - np.log(mif)).mean(),
        "accuracy": (lif > 0.5).mean() - (mif > 0.5).mean(),
        "probability": (lif - mif).mean(),
        "log_probability": (np.log(lif) - np.log(mif)).mean(),
        "logit": (logit["lif"] - logit["mif"]).mean(),
        "deletion": mif.mean(0),
        "insertion": lif.mean(0),
    }


@every_task
@settings(deadline=None, max_examples=50)
@given(samples=st.integers(1, 6), levels=st.integers(2, 5), seed=st.integers(0, 10**6))
def test_metrics_equal_the_loop(task, samples, levels, seed):
    arrays = drawn(task, samples, levels, seed)
    intact, most, least, target = map(torch.from_numpy, arrays)
    fractions = [k / levels for k in range(levels)]
    found = {
        "lif_accuracy": DeletionAccuracy(levels, task=task)(least, target),
        "mif_accuracy_drop": DeletionAccuracyDrop(levels, task=task)(most, target),
        "aopc": AOPC(levels, task=task)(intact, most, target),
        "log_odds": LogOddsDrop(levels, task=task)(intact, most, target),
        "deletion": DeletionCurve(fractions)(target_probability(most, target, task)),
        "insertion": InsertionCurve(fractions)(target_probability(least, target, task)),
    }
    for score in ("accuracy", "probability", "log_probability", "logit"):
        metric = SymmetricRelevanceGain(levels, task=task, score=score)
        found[score] = metric(most, least, target)
    expected = reference(task, *arrays)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)
    areas = {
        "deletion": DeletionAUC(fractions)(target_probability(most, target, task)),
        "insertion": InsertionAUC(fractions)(target_probability(least, target, task)),
    }
    for name, area in areas.items():
        mean_height = np.trapezoid(expected[name], fractions) / fractions[-1]
        assert area.item() == pytest.approx(mean_height, abs=1e-9), name


def test_a_label_is_kept_under_its_own_sigmoid_whatever_the_others_say():
    masked = torch.tensor([[[0.1, 9.0], [-0.1, -9.0]]])  # kept though smaller; lost though larger
    target = torch.tensor([0])
    assert DeletionAccuracy(2, task="multilabel")(masked, target) == 0.5
    assert DeletionAccuracy(2)(masked, target) == 0.5
    assert DeletionAccuracy(2, task="multilabel")(masked[:, :1].repeat(1, 2, 1), target) == 1
    assert DeletionAccuracy(2)(masked[:, :1].repeat(1, 2, 1), target) == 0
    gain = SymmetricRelevanceGain(1, task="multilabel")(masked[:, 1:], masked[:, :1], target)
    assert gain == 1


def test_either_side_of_a_binary_head_is_kept_while_it_is_predicted():
    masked = torch.tensor([[[-2.0], [3.0], [-1.0]]])
    for side, kept in ((0, 2 / 3), (1, 1 / 3)):
        target = torch.tensor([side])
        accuracy = DeletionAccuracy(3, task="binary")(masked, target)
        drop = DeletionAccuracyDrop(3, task="binary")(masked, target)
        assert accuracy.item() == pytest.approx(kept)
        assert drop.item() == pytest.approx(1 - kept)


@every_task
@pytest.mark.parametrize("metric", ON_LOGITS)
def test_the_task_is_an_argument_by_place_and_by_name(metric, task):
    assert metric(3, task).task == metric(3, task=task).task == task


@every_task
@pytest.mark.parametrize("metric", ON_LOGITS)
def test_targets_are_checked_against_the_head(metric, task):
    made, classes = metric(2, task=task), {"binary": 2, "multilabel": 3}[task]
    head = {"binary": 1, "multilabel": 3}[task]
    masked = torch.zeros(1, 2, head)
    logits = {DeletionAccuracy: (), DeletionAccuracyDrop: (), SymmetricRelevanceGain: (masked,)}
    first = logits.get(metric, (torch.zeros(1, head),))
    made.update(*first, masked, torch.tensor([classes - 1]))
    with pytest.raises(ValueError, match=f"class indices from 0 to {classes - 1} but got"):
        made.update(*first, masked, torch.tensor([classes]))


def test_a_binary_task_needs_one_logit():
    with pytest.raises(ValueError, match="one value per sample under argument `task='binary'`"):
        DeletionAccuracy(2, task="binary").update(torch.zeros(1, 2, 2), torch.tensor([0]))


@every_task
@pytest.mark.parametrize("metric", CURVES)
def test_samples_without_a_probability_leave_the_curves(metric, task):
    _, most, _, target = drawn(task, 3, 2, 0)
    most[1, 0, target[1] if task == "multilabel" else 0] = np.nan
    scores = target_probability(torch.from_numpy(most), torch.from_numpy(target), task)
    made, rest = metric([0.0, 1.0]), metric([0.0, 1.0])
    assert torch.equal(made(scores), rest(scores[[0, 2]]))
    assert (made.num_samples, made.num_invalid) == (2, 1)
