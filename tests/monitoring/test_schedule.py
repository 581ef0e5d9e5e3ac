"""When audits are due, and how many images they may have."""

import pytest

from libragrad_lightning.audit import AuditError
from libragrad_lightning.monitoring import Overhead, Schedule


def test_the_epochs_and_steps_of_a_schedule():
    epochs = Schedule(every_n_epochs=2)
    assert [e for e in range(6) if epochs.at_validation(e)] == [0, 2, 4]
    assert not any(epochs.at_step(s) for s in range(6))
    by_steps = Schedule(every_n_train_steps=3)
    assert not any(by_steps.at_validation(e) for e in range(6))
    assert [s for s in range(1, 8) if by_steps.at_step(s)] == [3, 6]


@pytest.mark.parametrize(
    ("fraction", "samples", "expected"),
    [(0.05, 64, None), (0.1, 64, 32), (0.075, 64, 42), (9.0, 64, 1), (9.0, 1, None)],
)
def test_the_budget_shrinks_in_proportion(fraction, samples, expected):
    overhead = Overhead(0.05)
    assert bool(overhead.keep_within(fraction, samples)) == (expected is not None)
    assert overhead.max_samples == expected


def test_the_time_of_audits_is_compared_with_the_other_time_of_the_epoch(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    overhead = Overhead(0.05)
    overhead.add(1.0)
    assert overhead.fraction() == 0  # no epoch has begun
    overhead.begin_epoch()
    now = 103.0
    assert overhead.fraction() == 0
    overhead.add(0.25)
    overhead.add(0.75)
    assert overhead.fraction() == pytest.approx(0.5)
    overhead.begin_epoch()
    now = 104.0
    assert overhead.fraction() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"every_n_epochs": 0}, "`every_n_epochs` of at least 1 but got 0"),
        ({"every_n_train_steps": 0}, "`every_n_train_steps` of at least 1 but got 0"),
        ({"max_overhead": 0.0}, "`max_overhead` above 0, or None, but got 0.0"),
        ({"max_overhead": float("nan")}, "`max_overhead` above 0, or None, but got nan"),
    ],
)
def test_a_schedule_that_cannot_work_says_why(arguments, said):
    Schedule(every_n_epochs=1, every_n_train_steps=1, max_overhead=1e-9).check()
    with pytest.raises(AuditError, match=said):
        Schedule(**arguments).check()


def test_without_a_limit_nothing_shrinks():
    overhead = Overhead(None)
    assert not overhead.is_limited
    assert overhead.keep_within(9.0, 64) == ""
    assert Overhead(0.05).is_limited
    warning = Overhead(0.05).keep_within(0.1, 64)
    assert "took 10% of the time of the epoch and explains 32 images in place of 64" in warning
    assert "larger `max_overhead` than 0.05" in warning
