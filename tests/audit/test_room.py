"""As many images are explained at once as there is memory for beside the training."""

from types import SimpleNamespace

import pytest
import torch
from config_cases import config
from test_run import CONFIG, LABELS, TALL, audited, group

from libragrad_lightning.audit import MOST_AT_ONCE, AuditError, room
from libragrad_lightning.audit.room import images_that_fit

GIB = 2**30


def taking(size):
    return SimpleNamespace(bytes_recorded=lambda images: size)


@pytest.mark.parametrize(
    ("size", "count"), [(0, MOST_AT_ONCE), (GIB // 4, 8), (GIB + 1, 1), (100 * GIB, 1)]
)
def test_what_is_recorded_on_a_cpu_fits_into_two_gib(size, count):
    assert images_that_fit(taking(size), torch.zeros(1, 3, 8, 8)) == count


def test_what_is_recorded_on_a_device_fits_into_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr(room, "free_bytes", lambda device: 16 * GIB)
    assert images_that_fit(taking(GIB), torch.zeros(1, 3, 8, 8)) == 8


def test_an_audit_finds_out_and_goes_on_with_it(monkeypatch):
    monkeypatch.setattr(room, "_ON_CPU", 0)
    auto = config(batch_size="auto", metrics=["degenerate_rate"])
    assert auto.batch_size == 0
    run, _ = audited([group(TALL, LABELS)], config=auto)
    assert run.batch_size == 1
    assert [chunk.numbers for chunk in run.watcher.chunks] == [(n,) for n in range(5)]
    monkeypatch.undo()
    run, _ = audited([group(TALL, LABELS)], config=auto)
    assert run.batch_size == MOST_AT_ONCE
    assert len(run.watcher.chunks) == 1


@pytest.mark.parametrize("wrong", ["all", 0, -1])
def test_other_sizes_are_refused(wrong):
    with pytest.raises(AuditError, match="`batch_size`"):
        config(batch_size=wrong)
    assert CONFIG.batch_size == 2
