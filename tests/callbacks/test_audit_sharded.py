"""Two processes (gloo) that share the weights audit their shards, and agree with one process."""

import json

import pytest
import sharded_processes
import torch
from audit_cases import assert_same
from audit_processes import PROBES
from several_processes import needs_fsdp2, run_in_processes

pytestmark = needs_fsdp2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sharded")
    run_in_processes(sharded_processes.process, path, seconds=400)
    sharded_processes.validate(path)
    return path


def history(folder, name, devices=2, rank=0):
    return json.loads((folder / f"{name}_{devices}_{rank}.json").read_text())


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("strategy", ["fsdp2", "fsdp1"])
def test_two_processes_that_share_weights_agree_with_one(folder, strategy, name):
    one = history(folder, f"one_{name}", 1)
    first, second = (history(folder, f"{strategy}_{name}", rank=rank) for rank in range(2))
    assert first == second
    assert len(first) == len(one) == 1
    assert first[0]["samples"] == one[0]["samples"] == min(PROBES[name])
    assert first[0]["values"] == pytest.approx(one[0]["values"], rel=1e-6, abs=1e-6)
    assert first[0]["values"]["completeness_error/libra"] < 1e-6


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("strategy", ["fsdp2", "fsdp1"])
def test_a_run_that_shares_weights_is_the_same_with_and_without_the_audit(folder, strategy, rank):
    assert len(history(folder, f"{strategy}_with", rank=rank)) == 3
    digests = [
        torch.load(folder / f"{strategy}_{name}_{rank}.pt", weights_only=False)
        for name in ("with", "without")
    ]
    assert_same(*digests)


@pytest.mark.parametrize("strategy", ["fsdp2", "fsdp1"])
def test_a_process_that_fails_does_not_keep_those_waiting_that_share_its_weights(folder, strategy):
    for rank in range(2):
        found = history(folder, f"{strategy}_failing", rank=rank)
        assert len(found) == 2


@pytest.mark.parametrize("name", ["half", "half1", "half1_again"])
def test_weights_that_are_cast_are_explained_as_they_are_trained(folder, name):
    full = history(folder, "one_odd", 1)[0]["values"]
    found = history(folder, name)[0]["values"]
    assert found["completeness_error/libra"] < 1e-6
    assert found.keys() == full.keys()


def test_tensor_parallelism_is_refused(folder):
    for rank in range(2):
        said = (folder / f"tensor_{rank}.txt").read_text()
        assert "tensor parallelism" in said
        assert "`ModelParallelStrategy(tensor_parallel_size=1)`" in said
