"""Infidelity, sensitivity, average drop, fidelity and rank accuracy against their definitions."""

import math
from itertools import permutations

import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from torch import nn

from libragrad_lightning.metrics import (
    AverageDrop,
    AverageGain,
    AverageIncrease,
    Infidelity,
    MaxSensitivity,
    MuFidelity,
    RelevanceRankAccuracy,
)
from libragrad_lightning.metrics.functional import (
    explained_gain,
    infidelity,
    max_sensitivity,
    mu_fidelity,
    relevance_rank_accuracy,
)

DRAWS = 5


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 3)).double()


@torch.enable_grad()
def gradient(model, images):
    images = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(model(images)[:, 1].sum(), images)
    return found


def only(inputs):
    """Captum passes one input as it is or in a tuple."""
    return inputs if isinstance(inputs, torch.Tensor) else inputs[0]


def test_infidelity_is_captums(model):
    images = torch.randn(4, 1, 3, 4, dtype=torch.float64)
    noise = 0.3 * torch.randn(4, DRAWS, 1, 3, 4, dtype=torch.float64)
    maps = gradient(model, images)
    expected = captum_infidelity(
        model,
        lambda repeated: (noise.flatten(0, 1), repeated - noise.flatten(0, 1)),
        images,
        maps,
        target=1,
        n_perturb_samples=DRAWS,
    )
    with torch.no_grad():
        left = model((images[:, None] - noise).flatten(0, 1))[:, 1].view(4, DRAWS)
        change = model(images)[:, 1:2] - left
    found = infidelity((maps[:, None] * noise).flatten(2).sum(2), change)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    metric = Infidelity()
    metric.update((maps[:, None] * noise).flatten(2).sum(2), change)
    assert float(metric.compute()) == pytest.approx(float(expected.mean()))


def test_sensitivity_is_captums(model):
    images = torch.randn(4, 1, 3, 4, dtype=torch.float64)
    noise = 0.1 * torch.randn(4, DRAWS, 1, 3, 4, dtype=torch.float64)
    expected = sensitivity_max(
        lambda given: (gradient(model, only(given)),),
        images,
        perturb_func=lambda repeated: (only(repeated) + noise.flatten(0, 1),),
        n_perturb_samples=DRAWS,
        max_examples_per_batch=4 * DRAWS,
    )
    maps = gradient(model, images)[:, 0]
    perturbed = gradient(model, (images[:, None] + noise).flatten(0, 1)).view(4, DRAWS, 3, 4)
    torch.testing.assert_close(max_sensitivity(maps, perturbed), expected, rtol=1e-9, atol=1e-12)
    found = MaxSensitivity()(maps, perturbed)
    assert float(found) == pytest.approx(float(expected.mean()))


def test_an_exact_map_of_a_linear_model_has_no_infidelity():
    weight, image = torch.randn(2, 6, dtype=torch.float64)
    noise = torch.randn(1, DRAWS, 6, dtype=torch.float64)
    change = weight @ image - (image - noise) @ weight
    assert float(infidelity(noise @ weight, change)) < 1e-25
    assert float(infidelity(noise @ weight + 0.5, change)) == pytest.approx(0.25)


def test_fidelity_is_scipys_correlation_of_each_image():
    salience, drops = torch.randn(2, 7, 9, dtype=torch.float64)
    expected = [pearsonr(*rows).statistic for rows in zip(salience, drops, strict=True)]
    found = mu_fidelity(salience, drops)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-12, atol=1e-12)
    assert float(MuFidelity()(salience, drops)) == pytest.approx(sum(expected) / 7)
    torch.testing.assert_close(
        mu_fidelity(1e308 * salience.tanh(), 3 - drops), -mu_fidelity(salience.tanh(), drops)
    )


def test_what_has_no_correlation_counts_as_invalid():
    varied, blank = torch.rand(5, 4), torch.full((4,), 0.1)
    salience, drops = varied.clone(), varied.flip(1).contiguous()
    salience[0], drops[1] = blank, blank
    salience[2, 1], drops[3, 0] = torch.nan, -torch.inf
    assert mu_fidelity(salience, drops).isnan().tolist() == [True] * 4 + [False]
    metric = MuFidelity()
    metric.update(salience, drops)
    assert (metric.num_samples, metric.num_invalid) == (1, 4)


@given(
    st.lists(st.integers(-3, 3), min_size=6, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_rank_accuracy_is_the_mean_over_orders_of_ties(values, inside, ignored):
    maps = torch.tensor(values, dtype=torch.float64).view(1, 2, 3)
    mask, ignore = (torch.tensor(flags).view(1, 2, 3) for flags in (inside, ignored))
    counted = [i for i in range(6) if not ignored[i]]
    object_ = [i for i in counted if inside[i]]
    found = float(relevance_rank_accuracy(maps, mask, ignore))
    if not object_:
        assert math.isnan(found)
        return
    shares = []
    for drawn in permutations(counted):
        order = sorted(drawn, key=lambda i: -values[i])
        shares.append(len({*order[: len(object_)]} & {*object_}) / len(object_))
    assert found == pytest.approx(sum(shares) / len(shares))


def test_rank_accuracy_has_a_value_for_each_of_several_objects():
    maps = torch.tensor([[[5.0, 4.0, 1.0, 0.0]]])
    masks = torch.tensor([[[[1, 1, 0, 0]], [[0, 0, 1, 0]], [[0, 0, 0, 0]], [[1, 0, 0, 1]]]]).bool()
    found = relevance_rank_accuracy(maps, masks)
    assert found[0, :2].tolist() == [1.0, 0.0]
    assert found[0, 2].isnan()
    assert found[0, 3] == 0.5
    assert float(RelevanceRankAccuracy()(maps, masks)) == 0.5


def test_what_is_left_of_probabilities():
    before, after = torch.tensor([0.8, 0.5, 0.4, 1.0]), torch.tensor([0.4, 0.75, 0.4, 1.0])
    assert float(AverageDrop()(before, after)) == pytest.approx(0.125)
    metric = AverageGain()
    assert float(metric(before, after)) == pytest.approx(0.5 / 3)
    assert metric.num_invalid == 1
    assert float(AverageIncrease()(before, after)) == 0.25
    assert explained_gain(before, after).isnan().tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: infidelity(torch.ones(2), torch.ones(2)), r"`expected_change` to have shape"),
        (lambda: infidelity(torch.ones(2, 3), torch.ones(2, 4)), "`change`"),
        (lambda: mu_fidelity(torch.ones(2, 3), torch.ones(2, 4)), "`drops`"),
        (lambda: mu_fidelity(torch.ones(3), torch.ones(3)), "`salience` to have shape"),
        (lambda: max_sensitivity(torch.ones(2, 3, 3), torch.ones(2, 4, 3, 2)), "`perturbed_"),
        (lambda: explained_gain(torch.ones(2), torch.ones(3)), "`explained_probability`"),
        (lambda: explained_gain(torch.ones(2), 2 * torch.ones(2)), r"probabilities in \[0, 1\]"),
        (lambda: explained_gain(torch.ones(2).int(), torch.ones(2)), "`probability`"),
    ],
    ids=["layout", "draws", "sets", "rows", "sizes", "counts", "range", "type"],
)
def test_what_does_not_fit_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
