"""The worst and the best image of an audit, whichever chunks they are in."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from libragrad_lightning.reporting import Extremes
from libragrad_lightning.reporting.directions import LOWER

VALUES = st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, math.nan]), min_size=1, max_size=9)


def chunk(values, first=0, metric="segmentation_ap", rules="libra"):
    explanation = SimpleNamespace(rules=SimpleNamespace(name=rules))
    keys = [(first + row, -1) for row in range(len(values))]
    found = {f"{metric}/{rules}": torch.tensor(values)}
    return SimpleNamespace(
        inputs=[SimpleNamespace(explanation=explanation)], keys=keys, values=found
    )


@pytest.mark.parametrize("metric", ["segmentation_ap", "lif_aopc"])
@given(parts=st.lists(VALUES, min_size=1, max_size=4))
def test_the_last_ones_found_are_the_extremes_of_all(metric, parts):
    extremes, last, first = Extremes(), {}, 0
    for values in parts:
        for found in extremes.new_in(chunk(values, first, metric)):
            last[found.name] = first + found.row
        first += len(values)
    every = [value for values in parts for value in values]
    known = [number for number, value in enumerate(every) if value == value]
    assert extremes.seen == len(known)
    if not known:
        assert last == {}
        return
    low, high = (min(known, key=every.__getitem__), max(known, key=every.__getitem__))
    worst, best = (high, low) if metric in LOWER else (low, high)
    assert last == {f"worst_{metric}": worst, f"best_{metric}": best}


def test_one_metric_is_followed_and_those_that_tell_no_images_apart_are_not():
    extremes = Extremes()
    assert list(extremes.new_in(chunk([0.5], metric="completeness_error"))) == []
    assert len(list(extremes.new_in(chunk([0.5], metric="mif_aopc")))) == 2
    assert list(extremes.new_in(chunk([0.9], metric="segmentation_ap"))) == []
    assert extremes.seen == 1
