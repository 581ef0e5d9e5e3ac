"""What the hooks of a Trainer show, and when a step is one to audit."""

from types import SimpleNamespace

import pytest
from session_cases import session

from libragrad_lightning.audit import AuditRecord
from libragrad_lightning.monitoring import Schedule
from libragrad_lightning.monitoring.hooks import AuditHooks


def hooks(prints=True, audits=0, **schedule):
    found = session()
    found._history.records += [
        AuditRecord(epoch, epoch, {"accuracy": epoch / 10}, 1.0, 8) for epoch in range(audits)
    ]
    return AuditHooks(found, Schedule(**schedule), 0, prints)


def a_trainer(fn="fit", rank_zero=True, step=0, verbose=False):
    loop = SimpleNamespace(verbose=verbose)
    return SimpleNamespace(
        state=SimpleNamespace(fn=fn),
        is_global_zero=rank_zero,
        global_step=step,
        fast_dev_run=True,
        validate_loop=loop,
        test_loop=loop,
    )


def shown(capsys):
    """The epochs in the table that was printed."""
    text = capsys.readouterr().out
    return [epoch for epoch in range(9) if f"epoch {epoch}" in text]


def test_a_test_and_a_validation_show_the_last_audit(capsys):
    hooks(audits=3).on_test_end(a_trainer("test"))
    assert shown(capsys) == [2]
    hooks(audits=3).on_validation_end(a_trainer("validate"))
    assert shown(capsys) == [2]
    hooks(audits=3).on_validation_end(a_trainer("fit"))
    assert shown(capsys) == []


def test_values_that_lightning_prints_are_not_printed_twice(capsys):
    hooks(audits=3).on_test_end(a_trainer("test", verbose=True))
    hooks(audits=3).on_validation_end(a_trainer("validate", verbose=True))
    line = "Explanation audit of 8 images (epoch 2, step 2)\n"
    assert capsys.readouterr().out == 2 * line
    hooks(audits=0).on_test_end(a_trainer("test", verbose=True))
    assert capsys.readouterr().out == ""


def test_a_fit_shows_all_audits(capsys):
    for audits in (3, 0):
        hooks(audits=audits).on_fit_end(a_trainer())
        assert shown(capsys) == list(range(audits))


def test_one_process_shows_a_table_if_it_is_wanted(capsys):
    hooks(audits=3).on_test_end(a_trainer(rank_zero=False))
    hooks(False, audits=3).on_test_end(a_trainer())
    assert shown(capsys) == []


def test_audits_of_other_names_have_states_of_their_own():
    names = ("audit", "more")
    keys = [AuditHooks(session(name), Schedule(), 0, True).state_key for name in names]
    assert len(set(keys)) == 2
    assert all(name in key for name, key in zip(names, keys, strict=True))


def test_a_step_is_looked_at_once():
    found = hooks(every_n_train_steps=2)
    for step, is_due in ((0, False), (1, False), (2, True), (2, False), (3, False), (4, True)):
        if is_due:
            with pytest.warns(UserWarning, match="begins after the first validation"):
                found.on_train_batch_end(a_trainer(step=step), None)
        else:
            found.on_train_batch_end(a_trainer(step=step), None)


def test_keys_of_what_is_logged():
    assert hooks().keys == [
        "audit/degenerate_rate/plain",
        "audit/degenerate_rate/libra",
        "audit/drift_cosine/plain",
        "audit/drift_cosine/libra",
        "audit/accuracy",
        "audit/seconds",
    ]
