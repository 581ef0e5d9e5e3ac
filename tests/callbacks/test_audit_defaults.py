"""What is audited if nothing else is asked for."""

import inspect

from libragrad_lightning.callbacks import Deletion, LibraGradAudit, Pictures, Schedule
from libragrad_lightning.perturbation import LEVELS


def test_what_is_explained_by_default():
    assert LibraGradAudit().state_dict()["settings"] == {
        "probe": "first",
        "max_samples": 64,
        "dataloader_idx": 0,
        "forward": None,
        "task": "auto",
        "rules": ["plain", "libra"],
        "method": "fullgrad_plus",
        "reward": "log_odds",
        "target": "predicted",
        "levels": [float(level) for level in LEVELS],
        "perturbation": "tokens",
        "blocks": None,
        "backbone": None,
        "completeness_on": "some",
        "deletes_in_bfloat16": False,
    }


def test_how_it_is_explained_by_default():
    given = inspect.signature(LibraGradAudit).parameters
    others = {
        "metrics": None,
        "completeness_on": "some",
        "deletion": Deletion(),
        "batch_size": "auto",
        "precision": "float32",
        "unpack": None,
        "num_images": 8,
        "pictures": Pictures(192),
        "schedule": Schedule(1),
        "unknown": "error",
        "on_error": "raise",
        "name": "audit",
        "print_summary": True,
    }
    assert {name: given[name].default for name in others} == others
    assert Schedule(1) == Schedule(1, None, False, False, None)
