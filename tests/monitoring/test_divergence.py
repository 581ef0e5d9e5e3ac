"""Where accuracy and explanations part."""

import numpy as np
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
