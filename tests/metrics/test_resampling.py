"""Draws with replacement are distributed as they should be."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from libragrad_lightning.metrics.functional.resampling import Resampling


def times(count, draws, seed=0):
    return Resampling(count, np.random.Generator(np.random.SFC64(seed))).times(draws)


def fits(observed, probabilities):
    """Say whether counts of outcomes are as probable as five standard deviations of chi-square."""
    expected = observed.sum() * probabilities
    chi_square = ((observed - expected) ** 2 / expected).sum()
    freedom = len(observed) - 1
    return chi_square < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_way_to_draw_few_samples_is_as_frequent_as_all_orders_of_it(count):
    orders = [np.bincount(order, minlength=count) for order in product(range(count), repeat=count)]
    ways, frequency = np.unique(orders, axis=0, return_counts=True)
    found, observed = np.unique(times(count, 50_000).numpy(), axis=0, return_counts=True)
    assert np.array_equal(found, ways)
    assert len(ways) == 1 or fits(observed, frequency / count**count)


@pytest.mark.parametrize("count", [11, 40, 400, 3001])
def test_each_sample_is_drawn_binomially_often_and_pairs_exclude_each_other(count):
    found = times(count, 4_000_000 // count)
    assert (found.sum(1) == count).all()
    observed = torch.bincount(found.flatten().long(), minlength=7).double()[:7].numpy()
    binomial = [
        math.comb(count, k) * (1 / count) ** k * (1 - 1 / count) ** (count - k) for k in range(7)
    ]
    assert fits(observed, np.array(binomial) / sum(binomial))
    middle = found[:, count // 2 :].double().sum(1)  # half of the samples, together
    assert middle.mean().item() == pytest.approx(count - count // 2, abs=count / 800)
    assert middle.var().item() == pytest.approx(count / 4, rel=0.2)


def test_draws_go_on_with_the_generator_and_depend_on_its_seed():
    resampling = Resampling(60, np.random.Generator(np.random.SFC64(5)))
    first, second = resampling.times(3), resampling.times(3)
    assert torch.equal(first, times(60, 3, seed=5))
    assert not torch.equal(first, second)
    assert not torch.equal(first, times(60, 3, seed=6))
