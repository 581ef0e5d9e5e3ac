"""Processes that see different things agree on what to do, and say which process it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, pathlib, libragrad_lightning, audit_disagreements
audit_disagreements.main(pathlib.Path(sys.argv[1]))
"""
SECONDS = 200
"""A process that waits for another for ever fails the tests."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("processes")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    places = os.pathsep.join(sys.path)
    subprocess.run(
        [sys.executable, "-c", SCRIPT, path],
        cwd=Path(__file__).parent,
        check=True,
        timeout=SECONDS,
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": places},
    )
    return path


def found(folder, name):
    return [json.loads((folder / f"{name}_{rank}.json").read_text()) for rank in range(2)]


def test_a_failure_in_one_process_is_told_and_ends_nothing_under_warn(folder):
    first, second = found(folder, "warned")
    assert first["audits"] == second["audits"] == []
    assert first["error"] is second["error"] is None
    said = [m for m in first["said"] if "gave up an audit" in m]
    assert any("in process 1: MisconfigurationException: planted in a batch." in m for m in said)


def test_a_failure_in_one_process_ends_all_in_the_same_way(folder):
    first, second = found(folder, "raised")
    assert "planted in a batch." in second["error"]
    assert "MisconfigurationException: LibraGradAudit gave up an audit" in first["error"]
    assert "in process 1: MisconfigurationException: planted in a batch." in first["error"]


@pytest.mark.parametrize("name", ["sizes", "tasks"])
def test_processes_with_other_images_or_labels_come_to_the_same_values(folder, name):
    first, second = found(folder, name)
    assert first["error"] is second["error"] is None
    assert first["audits"] == second["audits"]
    ((samples, values),) = first["audits"]
    assert samples == 12
    assert values["completeness_error/libra"] < 1e-4
    assert ("mean_absolute_error" in values) == (name == "tasks")
