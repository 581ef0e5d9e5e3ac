"""Metrics that add up tell what all processes hold as torchmetrics does, in one call."""

import pytest
import torch
import torch.distributed as dist
from several_processes import run_in_processes

from libragrad_lightning.audit.summed_states import summed_states
from libragrad_lightning.metrics import AOPC, CompletenessError, SegmentationAP

# isort: split
from torchmetrics import CatMetric, MeanMetric


def fed(rank):
    """Metrics of a process; the second one has nothing for one of them."""
    generator = torch.Generator().manual_seed(rank)
    found = [CompletenessError(), AOPC(2), SegmentationAP(), MeanMetric(), CatMetric()]
    logits = torch.randn(3, 2, 4, generator=generator)
    found[0].update(torch.randn(5 + rank, generator=generator), torch.zeros(5 + rank))
    found[1].update(logits[:, 0], logits, torch.tensor([0, 1, 2]))
    if rank == 0:
        found[2].update(
            torch.rand(2, 3, 3, generator=generator), torch.eye(3).bool().expand(2, 3, 3)
        )
    found[3].update(torch.rand(rank + 1, generator=generator))
    found[4].update(torch.tensor([float(rank)]))
    return found


def counted(call, name, calls):
    def called(*args, **kwargs):
        calls.append(name)
        return call(*args, **kwargs)

    return called


def compare(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    usual = [metric.compute() for metric in fed(rank)]
    metrics, calls = fed(rank), []
    names = ("all_gather", "all_gather_object", "barrier")
    before = [dict(metric.metric_state) for metric in metrics[:4]]
    for name in names:
        setattr(dist, name, counted(getattr(dist, name), name, calls))
    with summed_states(metrics):
        for metric, value in zip(metrics[:4], usual, strict=False):
            torch.testing.assert_close(metric.compute(), value, rtol=1e-12, atol=0)
        assert calls == ["all_gather_object"]
        assert torch.equal(metrics[4].compute(), usual[4])
        assert len(calls) > 1
    for metric, states in zip(metrics, before, strict=False):
        assert all(getattr(metric, name) is state for name, state in states.items())
    dist.destroy_process_group()


def test_two_processes_agree_with_torchmetrics(tmp_path):
    run_in_processes(compare, tmp_path)


def test_a_single_process_has_nothing_to_add():
    metrics = fed(0)
    values = [metric.compute() for metric in fed(0)]
    with summed_states(metrics):
        for metric, value in zip(metrics, values, strict=True):
            assert metric.compute() == pytest.approx(value, nan_ok=True)
