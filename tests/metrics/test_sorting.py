"""Order and ranks of rows, in tensors with any number of axes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from libragrad_lightning.metrics.functional.sorting import (
    argsort,
    average_ranks,
    dense_ranks,
    sort_values,
)

TYPES = [torch.float32, torch.float64, torch.int32]


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    dtype=st.sampled_from(TYPES),
    seed=st.integers(0, 999),
)
def test_ranks_are_those_of_scipy(shape, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-3, 4, shape, generator=generator).to(dtype)
    for ranks, method, first in ((dense_ranks, "dense", 1), (average_ranks, "average", 0)):
        expected = torch.from_numpy(rankdata(values.numpy(), method, axis=-1)) - first
        assert torch.equal(ranks(values).double(), expected.double())


@pytest.mark.parametrize("shape", [(9,), (4, 9), (2, 3, 9)])
@pytest.mark.parametrize("dtype", TYPES)
def test_rows_are_sorted(shape, dtype):
    values = torch.randint(-5, 6, shape).to(dtype)
    kept = values.clone()
    expected = values.sort(dim=-1).values
    assert torch.equal(sort_values(values), expected)
    assert torch.equal(values.gather(-1, argsort(values)), expected)
    assert torch.equal(values, kept)
