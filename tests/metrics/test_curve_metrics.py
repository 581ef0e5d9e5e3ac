import itertools

import matplotlib as mpl
import numpy as np
import pytest
import torch

from libragrad_lightning.metrics import (
    DeletionAUC,
    DeletionCurve,
    InsertionAUC,
    InsertionCurve,
    SymmetricRelevanceGain,
)
from libragrad_lightning.metrics.functional import area_under_curve, bootstrap_interval
from libragrad_lightning.metrics.functional import symmetric_relevance_gain as gain

torch.set_num_threads(1)


def removed(x, ranking, fraction):
    """Set to zero the first of the ranked values, as many as the fraction says."""
    left = x.copy()
    left[ranking[: round(fraction * len(x))]] = 0
    return left


@pytest.mark.parametrize(
    ("x", "fractions", "deletion", "area"),
    [
        ([0.4, 0.3, 0.2, 0.1], [0.0, 0.5, 1.0], [1.0, 0.3, 0.0], 0.4),
        ([0.3, 0.25, 0.2, 0.15, 0.1], [0.0, 0.4, 0.8, 1.0], [1.0, 0.45, 0.1, 0.0], 0.41),
    ],
)
def test_published_curves_of_a_sum(x, fractions, deletion, area):
    x = np.array(x)
    ranking = np.argsort(-x)
    deleted = [removed(x, ranking, fraction).sum() for fraction in fractions]
    inserted = [x.sum() - value for value in deleted]
    scores = torch.tensor([deleted], dtype=torch.float64)
    insertion_scores = torch.tensor([inserted], dtype=torch.float64)
    insertion = [1 - value for value in deletion]
    assert DeletionCurve(fractions)(scores).tolist() == pytest.approx(deletion, abs=1e-12)
    assert InsertionCurve(fractions)(insertion_scores).tolist() == pytest.approx(insertion)
    assert DeletionAUC(fractions)(scores).item() == pytest.approx(area, abs=1e-12)
    assert InsertionAUC(fractions)(insertion_scores).item() == pytest.approx(1 - area, abs=1e-12)


def test_a_model_that_dies_at_the_first_removed_pixel_has_no_deletion_score():
    fractions = np.linspace(0, 1, 11)[1:]
    dead = [float(removed(np.ones(10), np.arange(10), fraction).all()) for fraction in fractions]
    assert DeletionAUC(fractions)(torch.tensor([dead])) == 0


def test_area_equals_numpy_and_is_divided_by_the_range():
    fractions = [0.1, 0.15, 0.4, 0.9]
    scores = torch.randn(5, 4, dtype=torch.float64)
    expected = np.trapezoid(scores.numpy(), fractions, axis=1) / 0.8
    np.testing.assert_allclose(area_under_curve(scores, fractions), expected, atol=1e-12)
    metric = DeletionAUC(fractions)
    metric.update(scores[:2])
    metric.update(scores[2:])
    assert metric.compute().item() == pytest.approx(expected.mean(), abs=1e-12)
    np.testing.assert_allclose(metric.curve(), scores.mean(0), atol=1e-12)


def linear_logits(weights, x, attribution, levels):
    """Return logits [1, S, 2] of a linear model under MIF and LIF deletion."""
    ranking = np.argsort(-attribution, kind="stable")
    curves = []
    for order in (ranking, ranking[::-1]):
        values = [weights @ removed(x, order, level) for level in levels]
        curves.append(torch.tensor([[[value, 0.0] for value in values]]))
    return curves


def test_the_terms_of_a_linear_model_have_the_best_possible_relevance_gain():
    generator = np.random.default_rng(0)
    weights, x = generator.normal(size=(2, 6))
    levels, target = np.arange(1, 6) / 6, torch.tensor([0])

    def value(attribution):
        logits = linear_logits(weights, x, attribution, levels)
        return gain(*logits, target, score="logit").mean().item()

    best = value(weights * x)
    others = [value(np.array(ranks)) for ranks in itertools.permutations(range(6))]
    assert best == pytest.approx(max(others), abs=1e-12)
    assert best > np.median(others)


def test_a_random_map_has_no_relevance_gain():
    generator = np.random.default_rng(0)
    levels = np.arange(1, 10) / 10
    target = torch.tensor([0])
    values, loop = [], []
    for _ in range(200):
        weights, x, attribution = generator.normal(size=(3, 10))
        mif, lif = linear_logits(weights, x, attribution, levels)
        values.append(gain(mif, lif, target)[0])
        loop.append(np.mean([float(b[0] >= b[1]) - float(a[0] >= a[1])
                             for a, b in zip(mif[0], lif[0], strict=True)]))  # fmt: skip
    values = torch.stack(values)
    assert values.mean(dim=1).tolist() == pytest.approx(loop, abs=1e-12)
    interval = bootstrap_interval(values)
    assert interval.lower < 0 < interval.upper
    assert interval.upper - interval.lower < 0.2


def test_bounds_of_the_relevance_gain_follow_its_score():
    assert SymmetricRelevanceGain(2).plot_upper_bound == 1
    assert SymmetricRelevanceGain(2, score="logit").plot_upper_bound is None


def test_curves_are_drawn_over_the_fractions(monkeypatch):
    monkeypatch.setitem(mpl.rcParams, "backend", "agg")
    metric = DeletionCurve([0.0, 0.25, 1.0])
    values = [metric(torch.rand(2, 3)) for _ in range(2)]
    figure, axes = metric.plot(values)
    lines = axes.get_lines()
    assert [list(line.get_xdata()) for line in lines] == [[0.0, 0.25, 1.0]] * 2
    assert list(lines[1].get_ydata()) == pytest.approx(values[1].tolist())
    assert metric.plot(ax=axes)[1] is axes
    assert len(axes.get_lines()) == 3
    mpl.pyplot.close(figure)


@pytest.mark.parametrize(
    "fractions", [[], [0.5], [0.1, 0.1], [0.5, 0.2], [-0.1, 0.5], [0.5, 1.1], [0.0, float("nan")]]
)
def test_bad_fractions(fractions):
    message = r"Expected argument `fractions` to be two or more rising numbers in \[0, 1\] but got "
    with pytest.raises(ValueError, match=message):
        InsertionAUC(fractions)
    with pytest.raises(ValueError, match=message):
        area_under_curve(torch.zeros(1, len(fractions)), fractions)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        pytest.param(torch.zeros(3), r"to have shape \[B, S\] but got \[3\]", id="one_dimension"),
        pytest.param(
            torch.zeros(2, 4),
            r"to have shape \[2, 3\] to match `fractions` but got \[2, 4\]",
            id="points",
        ),
        pytest.param(torch.zeros(2, 3).int(), r"to be a floating point tensor", id="integers"),
    ],
)
def test_bad_scores(scores, message):
    with pytest.raises(ValueError, match=f"`deletion_scores` {message}"):
        DeletionCurve([0.0, 0.5, 1.0]).update(scores)
    with pytest.raises(ValueError, match=f"`insertion_scores` {message}"):
        InsertionCurve([0.0, 0.5, 1.0]).update(scores)


def test_an_area_needs_floating_point_scores():
    with pytest.raises(ValueError, match="`scores` to be a floating point tensor"):
        area_under_curve(torch.zeros(2, 3).int(), [0.0, 0.5, 1.0])
