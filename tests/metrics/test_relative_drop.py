"""The relative drop of a regression against a loop, and its limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import LEVELS

from libragrad_lightning.metrics import ConfidenceInterval, PairedDifference, RelativeDrop
from libragrad_lightning.metrics.functional import deletion_relative_drop

torch.set_num_threads(1)


def drawn(samples, levels, outputs, seed):
    generator = np.random.default_rng(seed)
    intact = generator.normal(size=(samples, outputs))
    masked = generator.normal(size=(samples, levels, outputs))
    return intact, masked, generator.integers(outputs, size=samples)


@settings(deadline=None, max_examples=50)
@given(
    samples=st.integers(1, 6),
    levels=st.integers(1, 5),
    outputs=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_the_metric_equals_the_loop(samples, levels, outputs, seed):
    intact, masked, target = drawn(samples, levels, outputs, seed)
    expected = np.zeros((samples, levels))
    for n in range(samples):
        for s in range(levels):
            before, after = intact[n, target[n]], masked[n, s, target[n]]
            expected[n, s] = (before - after) / abs(before)
    arguments = [torch.from_numpy(values) for values in (intact, masked, target)]
    np.testing.assert_allclose(deletion_relative_drop(*arguments), expected, atol=1e-12)
    metric = RelativeDrop(levels)
    assert metric(*arguments).item() == pytest.approx(expected.mean(), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(metric.curve(), expected.mean(0), rtol=1e-12, atol=1e-12)


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 10**6))
def test_the_unit_of_the_output_does_not_matter_and_its_sign_does(scale, seed):
    intact, masked, target = map(torch.from_numpy, drawn(4, 3, 2, seed))
    drop = deletion_relative_drop(intact, masked, target)
    scaled = deletion_relative_drop(scale * intact, scale * masked, target)
    torch.testing.assert_close(scaled, drop, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(deletion_relative_drop(-intact, -masked, target), -drop)


def test_an_untouched_and_a_vanished_output():
    intact = torch.tensor([[3.0], [-3.0]])
    same, gone = intact[:, None].expand(-1, 2, -1), torch.zeros(2, 2, 1)
    assert deletion_relative_drop(intact, same).tolist() == [[0, 0], [0, 0]]
    assert deletion_relative_drop(intact, gone).tolist() == [[1, 1], [-1, -1]]


def test_the_only_output_needs_no_target():
    intact, masked, _ = map(torch.from_numpy, drawn(3, LEVELS, 1, 0))
    target = torch.zeros(3, dtype=torch.long)
    assert torch.equal(
        deletion_relative_drop(intact, masked), deletion_relative_drop(intact, masked, target)
    )
    assert RelativeDrop(LEVELS)(intact, masked) == RelativeDrop(LEVELS)(intact, masked, target)


@pytest.mark.parametrize("value", [0.0, -0.0, math.nan, math.inf, -math.inf])
def test_an_intact_output_without_a_size_makes_its_sample_invalid(value):
    intact, masked, target = map(torch.from_numpy, drawn(3, LEVELS, 2, 0))
    intact[1, target[1]] = value
    drop = deletion_relative_drop(intact, masked, target)
    assert drop.isnan().any(1).tolist() == [False, True, False]
    assert drop[1].isnan().all()
    metric = RelativeDrop(LEVELS)
    assert metric(intact, masked, target).item() == pytest.approx(drop[[0, 2]].mean().item())
    assert (metric.num_samples, metric.num_invalid) == (2, 1)


def test_only_the_explained_output_has_to_be_finite():
    intact, masked, target = map(torch.from_numpy, drawn(2, LEVELS, 2, 0))
    expected = deletion_relative_drop(intact, masked, target)
    intact[0, 1 - target[0]], masked[1, 2, 1 - target[1]] = math.nan, math.inf
    assert torch.equal(deletion_relative_drop(intact, masked, target), expected)
    masked[1, 2, target[1]] = math.inf
    found = deletion_relative_drop(intact, masked, target)
    assert found.isnan().nonzero().tolist() == [[1, 2]]


def test_zero_outputs_of_all_samples_give_nan():
    metric = RelativeDrop(LEVELS)
    assert metric(torch.zeros(2, 1), torch.ones(2, LEVELS, 1)).isnan()
    assert (metric.num_samples, metric.num_invalid) == (0, 2)


def test_intervals_take_the_metric():
    intact, masked, target = map(torch.from_numpy, drawn(40, LEVELS, 2, 0))
    interval = ConfidenceInterval(RelativeDrop(LEVELS))(intact, masked, target)
    assert interval["lower"] < interval["value"] < interval["upper"]
    first = {"output": intact, "masked_output": masked, "target": target}
    pair = PairedDifference(RelativeDrop(LEVELS))(first, first)
    # Sums round by where in memory their terms lie.
    bounds = [pair[name].item() for name in ("value", "lower", "upper")]
    assert bounds == pytest.approx([0, 0, 0], abs=1e-12)
    assert interval["is_reliable"]
    assert not pair["is_reliable"]


BAD = [
    pytest.param(
        ((2, 3), (2, 4, 3), None),
        r"`target` to hold the index of one of 3 outputs for each sample but got None\.",
        id="no_target",
    ),
    pytest.param(
        ((2, 3), (2, 4, 3), torch.tensor([0, 3])),
        r"`target` to hold class indices from 0 to 2 but got values from 0 to 3",
        id="out_of_range",
    ),
    pytest.param(
        ((2, 3), (2, 4, 3), torch.tensor([0])),
        r"`target` to have shape \[2\] to match `output` but got \[1\]",
        id="length",
    ),
    pytest.param(
        ((2,), (2, 4), None), r"`output` to have shape \[B, C\] but got \[2\]", id="no_axis"
    ),
    pytest.param(
        ((2, 1), (2, 4), None),
        r"`masked_output` to have shape \[B, S, C\] but got \[2, 4\]",
        id="no_levels",
    ),
    pytest.param(
        ((2, 1), (3, 4, 1), None),
        r"`masked_output` to have shape \[2, 4, 1\] to match `output` but got \[3, 4, 1\]",
        id="batch",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_arguments(arguments, message):
    output, masked, target = arguments
    with pytest.raises(ValueError, match=f"Expected argument {message}"):
        deletion_relative_drop(torch.zeros(output), torch.zeros(masked), target)
    with pytest.raises(ValueError, match=f"Expected argument {message}"):
        RelativeDrop(4).update(torch.zeros(output), torch.zeros(masked), target)


def test_integers_and_wrong_levels_are_refused():
    with pytest.raises(ValueError, match=r"`output` to be a floating point tensor but got torch\."):
        deletion_relative_drop(torch.zeros(2, 1).long(), torch.zeros(2, 4, 1))
    message = r"Expected outputs at 5 deletion levels, as argument `num_levels` says, but got 4\."
    with pytest.raises(ValueError, match=message):
        RelativeDrop(5).update(torch.zeros(2, 1), torch.zeros(2, 4, 1))
    with pytest.raises(ValueError, match="`num_levels` to be a positive integer but got 0"):
        RelativeDrop(0)
