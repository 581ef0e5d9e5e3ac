"""Processes agree on what scores mean."""

from dataclasses import dataclass

import pytest
from config_cases import config

from libragrad_lightning.monitoring import collector
from libragrad_lightning.monitoring.collector import ProbeCollector
from libragrad_lightning.monitoring.notices import Notices


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
