"""Two processes (gloo) audit their shards of the probe set and agree with one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from audit_cases import assert_same
from audit_processes import PROBES

SCRIPT = """
import sys, pathlib, libragrad_lightning, audit_processes
audit_processes.main(pathlib.Path(sys.argv[1]))
"""
SECONDS = 150
"""A process that waits for another for ever fails the tests."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("processes")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    subprocess.run(
        [sys.executable, "-c", SCRIPT, path],
        cwd=Path(__file__).parent,
        check=True,
        timeout=SECONDS,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )
    return path


def history(folder, name, devices, rank):
    return json.loads((folder / f"{name}_{devices}_{rank}.json").read_text())


@pytest.mark.parametrize("name", PROBES)
def test_two_processes_agree_with_one(folder, name):
    one = history(folder, name, 1, 0)
    first, second = (history(folder, name, 2, rank) for rank in range(2))
    assert first == second
    assert len(first) == len(one) == 1
    assert first[0]["samples"] == one[0]["samples"] == min(PROBES[name])
    assert first[0]["values"].keys() == one[0]["values"].keys()
    assert first[0]["values"] == pytest.approx(one[0]["values"], rel=1e-6, abs=1e-6)


def test_a_process_that_fails_does_not_keep_the_other_waiting(folder):
    for rank in range(2):
        assert [record["epoch"] for record in history(folder, "failing", 2, rank)] == [0, 2]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_in_two_processes_is_the_same_with_and_without_the_audit(folder, rank):
    assert len(history(folder, "with", 2, rank)) == 3
    digests = [
        torch.load(folder / f"{name}_2_{rank}.pt", weights_only=False)
        for name in ("with", "without")
    ]
    assert_same(*digests)
