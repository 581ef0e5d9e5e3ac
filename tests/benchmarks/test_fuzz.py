"""A small share of what `benchmarks/fuzz.py` tries for longer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fuzz
from fuzz_trials import TRIALS


@pytest.mark.parametrize("name", TRIALS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_values_are_those_of_slow_references(name, seed):
    TRIALS[name](seed)


def test_a_run_counts_what_it_tries_and_names_what_differs(monkeypatch):
    def wrong(seed):
        assert seed % 2 == 0, "odd"

    monkeypatch.setitem(TRIALS, "wrong", wrong)
    tried, failed = fuzz.fuzz(0.05, ["wrong", "probabilities"])
    assert tried["wrong"] >= tried["probabilities"]
    assert len(failed) == tried["wrong"] // 2
    assert all(line.startswith("wrong, seed ") for line in failed)
