"""SaCo against the algorithm as it is printed, pair by pair."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from libragrad_lightning.metrics import SaCo
from libragrad_lightning.metrics.functional import salience_coefficient

VALUES = st.integers(-4, 4).map(lambda value: value / 4)


def as_printed(salience, drops):
    """The algorithm of the paper for one image."""
    counted = total = 0.0
    for i in range(len(salience)):
        for j in range(i + 1, len(salience)):
            weight = salience[i] - salience[j]
            if drops[i] < drops[j]:
                weight = -weight
            counted += weight
            total += abs(weight)
    return counted / total if total else math.nan


@given(
    st.integers(2, 6).flatmap(lambda n: st.tuples(*2 * [st.lists(VALUES, min_size=n, max_size=n)]))
)
def test_it_equals_the_printed_algorithm(drawn):
    salience, drops = sorted(drawn[0], reverse=True), drawn[1]
    found = salience_coefficient(torch.tensor([salience]), torch.tensor([drops]))
    assert float(found) == pytest.approx(as_printed(salience, drops), nan_ok=True)


def test_maps_that_are_right_wrong_and_ignorant():
    salience = torch.rand(2000, 10, dtype=torch.float64).sort(1, descending=True).values
    assert float(SaCo()(salience, salience.exp())) == pytest.approx(1)
    assert float(SaCo()(salience, -salience)) == pytest.approx(-1)
    ignorant = salience_coefficient(salience, torch.rand(2000, 10))
    assert abs(float(ignorant.mean())) < 4 * float(ignorant.std()) / math.sqrt(2000)


def test_it_sees_by_how_much_a_map_is_wrong():
    """The order of groups is the same, and the mistake is about nearly equal ones."""
    drops = torch.tensor([[0.3, 0.5, 0.1]])
    little, much = torch.tensor([[2.01, 2.0, 0.0]]), torch.tensor([[4.0, 2.0, 0.0]])
    assert salience_coefficient(little, drops) > 0.99 > 0.6 > salience_coefficient(much, drops)


@pytest.mark.parametrize(
    ("salience", "drops"),
    [
        (torch.ones(2, 3), torch.ones(2, 4)),
        (torch.ones(3), torch.ones(3)),
        (torch.ones(1, 2).int(), torch.ones(1, 2)),
    ],
)
def test_what_does_not_fit_is_refused(salience, drops):
    with pytest.raises(ValueError, match=r"Expected argument `(salience|drops)`"):
        salience_coefficient(salience, drops)
