"""Where accuracy and explanations part."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from libragrad_lightning.monitoring import AuditedAccuracy, find_divergence


def audits(curve):
    return [AuditedAccuracy(i, 10 * i, *values) for i, values in enumerate(curve)]


curves = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=12)


@settings(max_examples=200, deadline=None)
@given(curves, st.integers(1, 4), st.integers(1, 8), st.integers(1, 8))
def test_divergence_is_what_a_search_over_all_windows_finds(curve, patience, rise, drop):
    found = find_divergence(audits(curve), patience, rise, drop)
    expected = []
    if len(curve) >= 2 * patience:
        windows = sliding_window_view(np.array(curve), patience, axis=0)  # [windows, 2, patience]
        gaps = windows[-1][:, :, None] - windows[:-patience, :, None, :]
        gaps = gaps.reshape(len(gaps), 2, -1)
        parted = (gaps[:, 0] >= rise).all(1) & (gaps[:, 1] <= -drop).all(1)
        expected = windows[:-patience][parted, 1].min(1).tolist()
    assert (found is None) == (not expected)
    if found is not None:
        assert min(audit.quality for audit in found.before) == max(expected)
        assert list(found.now) == audits(curve)[-patience:]


@pytest.mark.parametrize(
    ("before", "now", "parted"),
    [
        ([(2, 9), (8, 9)], [(82, 1), (82, 1)], True),
        ([(2, 9), (80, 9)], [(82, 1), (82, 1)], False),  # the better of those before
        ([(2, 9), (8, 9)], [(82, 1), (12, 1)], False),  # the worse of those now
        ([(2, 9), (8, 5)], [(82, 1), (82, 1)], False),  # the worse explained of those before
        ([(2, 9), (8, 9)], [(82, 1), (82, 5)], False),  # the better explained of those now
        ([(2, 9), (8, 9)], [(18, 4), (18, 4)], True),  # just so much
        ([(2, 9), (8, 9)], [(17, 4), (18, 4)], False),
        ([(2, 9), (8, 9)], [(18, 4), (18, 5)], False),
    ],
)
def test_each_of_the_audits_on_one_side_is_compared_with_each_on_the_other(before, now, parted):
    found = find_divergence(audits([*before, *now]), 2, 10, 5)
    assert (found is not None) == parted
    if found is not None:
        assert [(a.accuracy, a.quality) for a in found.before] == before
