"""Runs jobs in worker processes with a memory limit and a timeout.

A worker handles many small jobs in a row, because importing timm takes longer than most of them,
and is replaced after any mishap and when it has grown.
"""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

Job: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]

_JOBS_PER_WORKER = 50
_GROWN_MEGABYTES = 2500


class JobError(Exception):
    """A job failed; the message says how."""


class JobMemoryError(JobError):
    """A job needed more memory than it may have."""


class JobTimeoutError(JobError):
    """A job took longer than it may."""


class Worker:
    """A process that runs one job at a time.

    Args:
        limit_gib: How much memory for data the process may allocate, in GiB.
    """

    def __init__(self, limit_gib: float) -> None:
        self._limit = int(limit_gib * 2**30)
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def run(self, job: Callable[..., Any], *arguments: Any, timeout: float) -> Any:
        """Run a job and return its result.

        Raises:
            JobMemoryError: If the memory limit was reached.
            JobTimeoutError: If the job took longer than `timeout` seconds.
            JobError: If the job raised an exception.
        """
        self._connection.send((job, arguments))
        if not self._connection.poll(timeout):
            self._restart()
            raise JobTimeoutError(f"longer than {timeout:.0f} s")
        try:
            result, error, megabytes = self._connection.recv()
        except EOFError:
            self._restart()
            raise JobMemoryError("the process was killed") from None
        self._jobs += 1
        if error is not None or self._jobs == _JOBS_PER_WORKER or megabytes > _GROWN_MEGABYTES:
            self._restart()
        if error is not None:
            raise (JobMemoryError if _is_memory_error(error) else JobError)(error)
        return result

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _start(self) -> None:
        self._jobs = 0
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(theirs, self._limit), daemon=True
        )
        self._process.start()
        theirs.close()

    def _restart(self) -> None:
        self.stop()
        self._start()


def _is_memory_error(error: str) -> bool:
    return "MemoryError" in error or "allocate memory" in error or "memory object" in error


def _serve(connection: Connection, limit: int) -> None:
    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    while True:
        job, arguments = connection.recv()
        result = error = None
        try:
            result = job(*arguments)
        except Exception as caught:  # reported to the parent, whatever it is
            error = f"{type(caught).__name__}: {caught}"
        connection.send((result, error, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))
