"""What a device has left is what is free, held without use, and allowed."""

import pytest
import torch

from libragrad_lightning.models import free_bytes

GIB = 2**30


def test_of_a_cpu_it_is_not_known():
    assert free_bytes(torch.device("cpu")) is None


@pytest.mark.parametrize(("share", "gib"), [(1.0, 16), (0.35, 8), (None, 16)])
def test_memory_that_is_held_counts_up_to_what_is_allowed(monkeypatch, share, gib):
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "mem_get_info", lambda device: (6 * GIB, 80 * GIB))
    monkeypatch.setattr(cuda, "memory_reserved", lambda device: 30 * GIB)
    monkeypatch.setattr(cuda, "memory_allocated", lambda device: 20 * GIB)
    name = "get_per_process_memory_fraction"
    if share is None:
        monkeypatch.delattr(cuda.memory, name, raising=False)
    else:
        monkeypatch.setattr(cuda.memory, name, lambda device: share, raising=False)
    assert free_bytes(torch.device("cuda:0")) == gib * GIB


@pytest.mark.gpu
def test_a_device_has_less_left_when_some_is_taken():
    device = torch.device("cuda:0")
    before = free_bytes(device)
    taken = torch.empty(GIB, dtype=torch.uint8, device=device)
    assert free_bytes(device) == pytest.approx(before - taken.nbytes, rel=0.01)
