"""Keeps failures of an audit from doing more harm than they must."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

import torch
from lightning.pytorch.utilities.memory import is_oom_error
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng

T = TypeVar("T")

OnError: TypeAlias = Literal["raise", "warn"]


@dataclass(frozen=True)
class Attempt(Generic[T]):
    """What came of a piece of work.

    Attributes:
        result: What it returned, or None if it failed.
        error: Why it failed, or None.
    """

    result: T | None = None
    error: Exception | None = None


def attempt(work: Callable[[], T]) -> Attempt[T]:
    """Do a piece of work; the random streams of the CPU are as before, whatever comes of it."""
    with isolate_rng(include_cuda=False):
        try:
            return Attempt(work())
        except Exception as error:
            return Attempt(error=error)


def attempt_in_chunks(work: Callable[[int], T], size: int) -> tuple[Attempt[T], int]:
    """Do a piece of work, again with half the chunk size whenever memory runs out.

    Args:
        work: Takes the chunk size.
        size: The largest one.

    Returns:
        What came of it, and the size that was tried last.
    """
    while True:
        found = attempt(lambda: work(size))  # noqa: B023  (called at once)
        if found.error is None or not is_out_of_memory(found.error) or size == 1:
            return found, size
        rank_zero_warn(
            f"LibraGradAudit ran out of memory with {size} images at once and goes on with "
            f"{size // 2}; pass `batch_size={size // 2}` to begin there."
        )
        size //= 2
        del found
        _free_memory()


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or what caused it, says that memory has run out."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or is_oom_error(error):
            return True
        error = error.__cause__
    return False


def settle(error: Exception | None, on_error: OnError) -> None:
    """Raise an error, or warn of it if that is wanted or memory has run out; None is none."""
    if error is None:
        return
    if on_error == "raise" and not is_out_of_memory(error):
        raise error
    if is_out_of_memory(error):
        hint = "images of a smaller size, or fewer `rules`, need less memory"
    else:
        hint = "pass `on_error='raise'` to see where it failed"
    rank_zero_warn(
        f"LibraGradAudit gave up an audit ({type(error).__name__}: {error}) and lets training go "
        f"on; {hint}."
    )


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
