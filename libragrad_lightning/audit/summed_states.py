"""What metrics of all processes hold, told in one message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_sum

from libragrad_lightning.models import gathered, is_grouped


@contextmanager
def summed_states(metrics: Iterable[Metric]) -> Iterator[None]:
    """Let metrics hold meanwhile what those of all processes hold together.

    torchmetrics gathers each state by itself, sizes first and behind a barrier: three hundred calls
    for the metrics of an audit, each of which waits for the slowest process. States that are added
    up are numbers, and go into one call. Metrics with others are left to torchmetrics.

    Args:
        metrics: The metrics, the same ones in every process and in the same order.
    """
    added = [m for m in metrics if _is_added_up(m)] if is_grouped() else []
    own = [_states(metric) for metric in added]
    found = gathered([[state.tolist() for state in states] for states in own]) if added else []
    alone = [metric.distributed_available_fn for metric in added]
    try:
        for number, (metric, states) in enumerate(zip(added, own, strict=True)):
            _set(metric, [_total(s, [p[number][i] for p in found]) for i, s in enumerate(states)])
            metric.distributed_available_fn = _never
        yield
    finally:
        for metric, states, available in zip(added, own, alone, strict=True):
            _set(metric, states)
            metric.distributed_available_fn = available


def _is_added_up(metric: Metric) -> bool:
    how = metric._reductions
    return bool(how) and all(h is dim_zero_sum for h in how.values())


def _total(state: Tensor, values: Iterable[Any]) -> Tensor:
    total = torch.stack([torch.tensor(each, dtype=state.dtype) for each in values]).sum(0)
    return total.to(state)


def _states(metric: Metric) -> list[Tensor]:
    return [getattr(metric, name) for name in metric._reductions]


def _set(metric: Metric, states: Iterable[Tensor]) -> None:
    for name, state in zip(metric._reductions, states, strict=True):
        setattr(metric, name, state)


def _never() -> bool:
    return False
