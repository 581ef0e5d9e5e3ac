"""What goes wrong in an audit is raised or warned of, at once or when all processes agree."""

import random
import warnings

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.checkpoint import CheckpointError

from libragrad_lightning.audit import AuditError, Failure
from libragrad_lightning.models import WeightsTooLargeError
from libragrad_lightning.monitoring import failures
from libragrad_lightning.monitoring.failures import FailureGuard


def fail(error):
    raise error


@pytest.fixture
def guard(monkeypatch):
    """A guard in the second of two processes, and what the first one tells."""

    def guard(on_error, first=None):
        made = FailureGuard(on_error)
        made.begin(2, 1)
        monkeypatch.setattr(failures, "gathered", lambda own: [first, own])
        return made

    return guard


def test_alone_a_failure_is_raised_at_once_and_then_forgotten():
    guard = FailureGuard("raise")
    guard.begin(1, 0)
    error = ValueError("planted")
    with pytest.raises(ValueError, match="planted") as raised:
        guard.attempt(fail, error)
    assert raised.value is error
    assert not guard.has_failed
    assert guard.agree()


def test_alone_a_failure_is_warned_of_and_keeps_others_from_being_tried():
    guard, done = FailureGuard("warn"), []
    guard.begin(1, 0)
    with pytest.warns(UserWarning, match=r"\(ValueError: planted\).*`on_error='raise'`"):
        guard.attempt(fail, ValueError("planted"))
    assert guard.has_failed
    guard.attempt(done.append, 1)
    assert done == []
    assert not guard.agree()
    assert not guard.has_failed
    guard.attempt(done.append, 2)
    assert done == [2]
    assert guard.agree()


@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_alone_memory_that_runs_out_is_warned_of(on_error):
    guard = FailureGuard(on_error)
    guard.begin(1, 0)
    with pytest.warns(UserWarning, match="smaller size, or fewer `rules`"):
        guard.attempt(fail, torch.OutOfMemoryError("planted"))
    assert not guard.agree()


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (AuditError("change `this`"), MisconfigurationException, "^change `this`$"),
        (CheckpointError("odd"), MisconfigurationException, "only `if self.training`"),
        (KeyError("odd"), KeyError, "odd"),
    ],
)
def test_what_says_what_to_change_is_an_error_of_lightning(error, kind, said):
    guard = FailureGuard("raise")
    with pytest.raises(kind, match=said) as raised:
        guard.attempt(fail, error)
    assert raised.value is error or raised.value.__cause__ is error


def test_work_leaves_the_random_streams_alone():
    guard = FailureGuard("warn")
    before = torch.get_rng_state(), random.getstate()

    def draw():
        torch.rand(1)
        random.random()
        fail(ValueError())

    with pytest.warns(UserWarning, match="gave up"):
        guard.attempt(draw)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


def test_of_several_processes_none_raises_before_all_agree(guard):
    for on_error in ("raise", "warn"):
        waiting = guard(on_error)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            waiting.attempt(fail, ValueError("planted"))
        assert waiting.has_failed


def test_a_process_raises_its_own_failure(guard):
    here = guard("raise", Failure(0, "ValueError: elsewhere"))
    here.attempt(fail, KeyError("mine"))
    with pytest.raises(KeyError, match="mine"):
        here.agree()
    assert not here.has_failed


def test_a_process_raises_the_failures_of_others(guard):
    here = guard("raise", Failure(0, "ValueError: elsewhere"))
    said = "gave up an audit in process 0: ValueError: elsewhere"
    with pytest.raises(MisconfigurationException, match=said):
        here.agree()


def test_processes_warn_of_all_failures(guard):
    here = guard("warn", Failure(0, "ValueError: elsewhere"))
    here.attempt(fail, KeyError("mine"))
    said = "in process 0: ValueError: elsewhere; in process 1: KeyError: 'mine'"
    with pytest.warns(UserWarning, match=said):
        assert not here.agree()
    assert not here.has_failed


@pytest.mark.parametrize("own", [None, torch.OutOfMemoryError("mine")])
def test_processes_without_memory_go_on(guard, own):
    here = guard("raise", Failure(0, "OutOfMemoryError: elsewhere", out_of_memory=True))
    if own is not None:
        here.attempt(fail, own)
    with pytest.warns(UserWarning, match="smaller size, or fewer `rules`"):
        assert not here.agree()


def test_weights_that_do_not_fit_say_themselves_what_to_do():
    guard = FailureGuard("raise")
    with pytest.warns(UserWarning, match=r"\(WeightsTooLargeError: use less\).*training go on\.$"):
        guard.attempt(fail, WeightsTooLargeError("use less"))


def test_another_failure_beside_memory_ends_the_run(guard):
    here = guard("raise", Failure(0, "ValueError: elsewhere"))
    here.attempt(fail, torch.OutOfMemoryError("mine"))
    with pytest.raises(torch.OutOfMemoryError, match="mine"):
        here.agree()
    both = guard("raise", Failure(0, "OutOfMemoryError: elsewhere", out_of_memory=True))
    both.attempt(fail, ValueError("mine"))
    with pytest.raises(ValueError, match="mine"):
        both.agree()


def test_processes_agree_that_nothing_failed(guard):
    here = guard("raise")
    done = []
    here.attempt(done.append, 1)
    assert here.agree()
    assert done == [1]
    here.attempt(fail, ValueError())
    here.forget()
    assert here.agree()
