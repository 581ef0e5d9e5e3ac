"""A bar shows how many images are done, and processes agree on what scores mean."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from config_cases import config

from libragrad_lightning.monitoring import collector
from libragrad_lightning.monitoring.collector import ProbeCollector
from libragrad_lightning.monitoring.notices import Notices
from libragrad_lightning.monitoring.watcher import progress_bar


@pytest.mark.parametrize(
    ("bar", "rank_zero", "shown"),
    [(object(), True, True), (None, True, False), (object(), False, False)],
)
def test_a_bar_is_shown_where_the_trainer_has_one(bar, rank_zero, shown):
    run = SimpleNamespace(progress_bar_callback=bar, is_global_zero=rank_zero)
    found = progress_bar(run, "audit", 12)
    assert found.disable is not shown
    if shown:
        assert (found.total, found.desc, found.leave, found.delay) == (12, "audit", False, 2)
    found.close()


@dataclass(frozen=True)
class Told:
    task: str
    more: int = 7


@pytest.mark.parametrize(
    ("own", "others", "agreed"),
    [
        ("binary", ["regression"], "regression"),
        ("regression", ["binary", None], "regression"),
        ("multiclass", [None], "multiclass"),
        (None, ["regression"], None),
        (None, [None], None),
    ],
)
def test_processes_agree_on_the_task_that_says_most(monkeypatch, own, others, agreed):
    monkeypatch.setattr(collector, "gathered", lambda task: [task, *others])
    found = ProbeCollector(config(), Notices())
    found._learned = None if own is None else Told(own)
    found.agree_on_task()
    assert found._learned == (None if agreed is None else Told(agreed))
