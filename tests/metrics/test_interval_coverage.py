"""How often intervals hold the true value, and whether they say so if they do not."""

import numpy as np
import pytest
import torch

from interval_coverage import KINDS, SOURCES, coverage
from libragrad_lightning.metrics.functional import (
    Bootstrap,
    bootstrap_interval,
    paired_bootstrap,
)

DRAWS = Bootstrap(num_resamples=200)


@pytest.mark.parametrize("kind", KINDS)
def test_few_samples_are_covered_as_often_as_is_said(kind):
    found = coverage(kind, SOURCES["normal"], count=10, simulations=300)
    # Plain percentiles hold 0.89 of the values; the deviation of the share is 0.013.
    assert 0.915 < found.held < 0.98
    assert found.said > 0.9


@pytest.mark.parametrize(("kind", "count"), [("mean", 10), ("mean over groups", 20)])
def test_a_rare_error_is_said_to_decide(kind, count):
    found = coverage(kind, SOURCES["Bernoulli 0.9"], count, simulations=300)
    assert found.held < 0.92
    assert found.said < 0.3
    assert not (found.said and found.held_if_said < 0.93)


def test_what_an_interval_of_few_or_equal_samples_says():
    few, many = torch.linspace(0, 1, 9), torch.linspace(0, 1, 40)
    with pytest.warns(UserWarning, match="fewer than 10 samples, or groups of them, misses"):
        assert not bootstrap_interval(few, DRAWS).is_reliable
    with pytest.warns(UserWarning, match="fewer than 10"):
        assert not bootstrap_interval(many, DRAWS, groups=torch.arange(40) // 5).is_reliable
    assert bootstrap_interval(many, DRAWS).is_reliable
    assert bootstrap_interval(many, DRAWS, groups=torch.arange(40) // 4).is_reliable
    assert not bootstrap_interval(torch.ones(40), DRAWS).is_reliable
    rare = torch.zeros(40).index_fill(0, torch.tensor([3]), 1.0)
    assert not bootstrap_interval(rare, DRAWS).is_reliable
    assert not bootstrap_interval((torch.arange(40) < 8).double(), DRAWS).is_reliable
    assert bootstrap_interval((torch.arange(40) < 12).double(), DRAWS).is_reliable
    both = torch.stack([rare, many], dim=1)
    assert bootstrap_interval(both, DRAWS, lambda means: means).is_reliable.tolist() == [
        False,
        True,
    ]
    assert paired_bootstrap(many, torch.zeros(40), DRAWS).is_reliable
    nothing = bootstrap_interval(torch.full((3,), torch.nan), DRAWS)
    assert not nothing.is_reliable
    assert nothing.is_reliable.dtype is torch.bool


def test_a_single_sample_has_an_interval_of_its_value():
    with pytest.warns(UserWarning, match="fewer than 10"):
        found = bootstrap_interval(torch.tensor([0.25]), DRAWS)
    assert (found.value, found.lower, found.upper) == (0.25, 0.25, 0.25)


def test_intervals_widen_with_confidence_and_shrink_with_samples():
    generator = np.random.default_rng(0)
    samples = torch.from_numpy(generator.normal(size=80))
    widths = []
    for count, confidence in ((10, 0.95), (10, 0.8), (20, 0.8), (80, 0.8)):
        found = bootstrap_interval(samples[:count], Bootstrap(confidence, 500))
        widths.append(float(found.upper - found.lower))
    assert widths == sorted(widths, reverse=True)
