"""Runs a function in two processes, which fail together when one waits for the other for ever."""

import time

from torch import multiprocessing

SECONDS = 150
"""How long they may take together; some seconds are enough on a machine that is not busy."""


def run_in_two_processes(function, folder):
    """Call `function(rank, folder)` in two processes; what one of them raises is raised here."""
    context = multiprocessing.spawn(function, args=(str(folder),), nprocs=2, join=False)
    end = time.monotonic() + SECONDS
    try:
        while not context.join(timeout=1):
            if time.monotonic() > end:
                raise TimeoutError("The two processes have not come to an end.")
    finally:
        for process in context.processes:
            process.kill()
