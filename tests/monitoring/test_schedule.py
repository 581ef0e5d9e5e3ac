"""When audits are due."""

import pytest

from libragrad_lightning.audit import AuditError
from libragrad_lightning.monitoring import Schedule


def test_the_epochs_and_steps_of_a_schedule():
    epochs = Schedule(every_n_epochs=2)
    assert [e for e in range(6) if epochs.at_validation(e)] == [0, 2, 4]
    assert not any(epochs.at_step(s) for s in range(6))
    by_steps = Schedule(every_n_train_steps=3)
    assert not any(by_steps.at_validation(e) for e in range(6))
    assert [s for s in range(1, 8) if by_steps.at_step(s)] == [3, 6]


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
