"""Runs a function in several processes, which fail together when one waits for ever for another."""

import time

import pytest
import torch
from torch import multiprocessing

needs_fsdp2 = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="FSDP2 of torch 2.6 wants a GPU"
)

SECONDS = 150
"""How long they may take together; some seconds are enough on a machine that is not busy."""


def run_in_processes(function, folder, count=2, seconds=SECONDS):
    """Call `function(rank, folder)` in processes; what one of them raises is raised here."""
    context = multiprocessing.spawn(function, args=(str(folder),), nprocs=count, join=False)
    end = time.monotonic() + seconds
    try:
        while not context.join(timeout=1):
            if time.monotonic() > end:
                raise TimeoutError(f"The {count} processes have not come to an end.")
    finally:
        for process in context.processes:
            process.kill()
