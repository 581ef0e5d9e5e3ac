"""What a session does while a validation passes by, and when it audits."""

import pytest
import torch
from session_cases import IMAGES, LABELS, Small, loader, session, trainer, validated
from torch import nn

from libragrad_lightning.monitoring import steps
from libragrad_lightning.monitoring.steps import StepWatcher


@pytest.fixture
def run(tmp_path):
    module = Small()
    return trainer(tmp_path, module)


def test_an_audit_runs_as_soon_as_the_probe_set_is_complete(run):
    found = session()
    found.start(run, True)
    (values,), audited = validated(found, run, loader())
    assert audited == [False, True, True]
    rates = {"audit/degenerate_rate/plain": 0.0, "audit/degenerate_rate/libra": 0.0}
    assert rates.items() <= values.items()
    assert {"audit/accuracy", "audit/seconds"} < set(values)
    (record,) = found.records
    assert (record.samples, record.weights, found.has_probe) == (8, "current", True)
    assert run.lightning_module.step == 3
    assert run.lightning_module.training


def test_the_next_audit_is_compared_with_the_last(run):
    found = session()
    found.start(run, True)
    validated(found, run, loader())
    (values,), audited = validated(found, run, loader())
    assert audited == [True, True, True]  # the probe set is there
    assert values["audit/drift_cosine/libra"] == pytest.approx(0.0, abs=1e-6)
    assert len(found.records) == 2
    found.start(run, True)  # a fit that begins at step 0 has no history
    assert found.records == []
    assert not found.has_probe


@pytest.mark.parametrize("known", [True, False])
def test_a_short_validation_is_audited_at_its_end(run, known):
    found = session()
    found.start(run, True)
    (_,), audited = validated(found, run, loader(6), known=known)
    assert audited == [False, known]
    assert found.records[0].samples == 6


def test_a_validation_without_the_loader_is_not_audited(run):
    found = session()
    found.start(run, True)
    assert validated(found, run, None) == ([], [])
    assert (found.records, found.has_probe) == ([], False)


def test_a_validation_that_is_not_due_may_show_the_probe_set(run):
    found = session()
    found.start(run, True)
    logged, _ = validated(found, run, loader(), is_due=False)
    assert (logged, found.records, found.has_probe) == ([], [], True)
    found.audit_now(run, "current", logged.append)
    assert [record.samples for record in found.records] == [8]
    assert "audit/accuracy" in logged[0]


def test_a_validation_of_which_nothing_is_needed_is_not_looked_at(run):
    found = session()
    found.start(run, True)
    assert validated(found, run, loader(), is_due=False, needs_probe=False)[0] == []
    assert not found.has_probe


def test_the_weights_at_the_end_are_audited_once(run):
    found = session()
    found.start(run, True)
    logged = []
    found.audit_now(run, "final", logged.append)
    assert logged == []  # there is no probe set
    validated(found, run, loader())
    found.audit_now(run, "final", logged.append)
    assert logged == []
    with torch.no_grad():
        run.lightning_module.net.head.bias += 1.0
    found.audit_now(run, "final", logged.append)
    assert [record.weights for record in found.records] == ["current", "final"]
    assert len(logged) == 1


class Squashing(nn.Module):
    """Cannot be explained while `fails`."""

    fails = True

    def forward(self, scores):
        if self.fails and torch.is_grad_enabled():
            raise ValueError("not now")
        return scores


def test_what_fails_is_not_tried_again_before_the_next_validation(run):
    found, module = session(on_error="warn"), run.lightning_module
    module.net.head = nn.Sequential(module.net.head, Squashing())
    found.start(run, True)
    with torch.no_grad(), pytest.warns(UserWarning, match="gave up an audit .ValueError: not now"):
        assert validated(found, run, loader())[0] == []
    assert found.records == []
    module.net.head[1].fails = False
    with torch.no_grad():
        assert len(validated(found, run, loader())[0]) == 1


def test_what_fails_ends_the_run_where_that_is_asked_for(run):
    found, module = session(), run.lightning_module
    module.net.head = nn.Sequential(module.net.head, Squashing())
    found.start(run, True)
    with torch.no_grad(), pytest.raises(ValueError, match="not now"):
        validated(found, run, loader())


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(run):
    found = session()
    found.start(run, True)
    validated(found, run, loader())
    state = found.state_dict()
    same, other = session(), session(target="label")
    same.load_state_dict(state)
    assert same.records == found.records
    with pytest.warns(UserWarning, match="resumed with other settings: target"):
        other.load_state_dict(state)
    assert other.records == []


def test_audits_that_take_too_much_of_an_epoch_shrink(run):
    found = session(max_overhead=1e-9)
    found.start(run, True)
    found.overhead.begin_epoch()
    (values,), _ = validated(found, run, loader())
    assert values["audit/samples"] == 1
    with pytest.warns(UserWarning, match="explains 1 images in place of 8"):
        found.keep_within_budget()
    (values,), _ = validated(found, run, loader())
    assert values["audit/samples"] == 1
    assert session().keep_within_budget() is None  # has no limit


def test_the_sanity_check_explains_one_image_and_settles_the_probe_set(run):
    found = session()
    found.start(run, True)
    run.sanity_checking = True
    found.begin(run, loader(), False, True)
    for i, batch in enumerate(list(loader())[:2]):
        found.watch(run, "validation_step", batch, i)
        run.lightning_module.validation_step(batch, i)
        found.see(run, i, i == 1)
        assert not found.has_probe
    run.sanity_checking = False
    found.look_back(False)
    assert (found.has_probe, found.records) == (True, [])  # eight images are all
    found.start(run, True)
    run.sanity_checking = True
    validated(found, run, loader(4), is_due=False)
    run.sanity_checking = False
    found.look_back(False)
    assert not found.has_probe


def test_a_step_is_watched_where_nothing_is_compiled_and_seen_again_where_it_may_be(monkeypatch):
    monkeypatch.setattr(steps, "may_compile", lambda: False)  # as if no test had compiled before
    module, batch = Small(), (IMAGES[:2], LABELS[:2])
    watcher = StepWatcher(module, "validation_step", batch)
    assert not watcher.may_compile
    module.validation_step(batch, 0)
    seen = watcher.seen()
    assert [call.path for call in seen.watched.calls] == ["net"]
    assert "validation_step" not in vars(module)

    module._compiler_ctx = {"original_validation_step": module.validation_step}
    watcher = StepWatcher(module, "validation_step", batch)
    assert watcher.may_compile
    module.validation_step(batch, 0)
    assert watcher.seen().watched is None
    assert [call.path for call in watcher.seen_again().watched.calls] == ["net"]
    assert module.step == 3


def test_outside_of_a_fit_images_are_explained_as_they_come_and_forgotten(run, tmp_path):
    kept = session(batch_size=3)
    kept.start(run, True)
    (expected,), _ = validated(kept, run, loader())
    outside = trainer(tmp_path, Small(), "validate")
    found, held = session(batch_size=3), []
    found.start(outside, False)
    see = found.see

    def seen(*args):
        see(*args)
        held.append(found._collector.size)

    found.see = seen
    (values,), audited = validated(found, outside, loader())
    assert audited == [True, True, True]
    assert held == [1, 0, 0]  # of the eight images, in chunks of three
    for key in set(expected) - {"audit/seconds"}:
        assert values[key] == pytest.approx(expected[key], nan_ok=True)
    assert found.records[0].samples == 8


@pytest.mark.parametrize("known", [True, False])
def test_images_that_come_and_go_are_explained_to_the_last(tmp_path, known):
    outside = trainer(tmp_path, Small(), "test")
    found = session(batch_size=4)
    found.start(outside, False)
    (_,), audited = validated(found, outside, loader(6), known=known)
    assert audited == [True, True]
    assert found.records[0].samples == 6
