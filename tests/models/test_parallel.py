"""One process explains its replica without waiting for the others."""

import copy

import torch
import torch.distributed as dist
from several_processes import run_in_processes
from situation_cases import Trained, assert_complete, explained, images
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from libragrad_lightning.models import gathered
from libragrad_lightning.models.parallel import without_communication

REPLICATED = [{}, {"find_unused_parameters": True}, {"static_graph": True}]


def network(rank=0):
    torch.manual_seed(0)
    model = Trained(nn.BatchNorm2d(8)).double()
    model.layer.running_mean += rank
    return model


def step(model, rank):
    model.zero_grad()
    model.train()(images(seed=rank)).square().sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def explain_a_replica(rank, options):
    replica = DistributedDataParallel(network(rank), **options)
    undisturbed = DistributedDataParallel(copy.deepcopy(replica.module), **options)
    for _ in range(2):
        if rank == 0:  # a call that waited for the other process would hang
            before = dict(vars(replica))
            logits, total = explained(replica, images())
            assert_complete(logits, total)
            assert torch.equal(logits, replica.module.eval()(images()).detach())
            assert vars(replica) == before
        gradients, expected = step(replica, rank), step(undisturbed, rank)
        assert all(map(torch.equal, gradients, expected))


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    for options in REPLICATED:
        explain_a_replica(rank, options)
    dist.destroy_process_group()


def test_two_processes(tmp_path):
    # One test for everything, because starting the processes takes longer than all their work.
    run_in_processes(process, tmp_path)


def test_alone_a_process_gathers_its_own():
    assert gathered("mine") == ["mine"]


FLAGS = ("require_backward_grad_sync", "require_forward_param_sync", "find_unused_parameters")


def test_a_replica_talks_to_nobody_inside_and_as_before_afterwards(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        replica = DistributedDataParallel(nn.Linear(2, 2), find_unused_parameters=True)
        with without_communication(nn.Sequential(replica)):
            assert not any(getattr(replica, flag) for flag in FLAGS)
        assert all(getattr(replica, flag) for flag in FLAGS)
    finally:
        dist.destroy_process_group()
