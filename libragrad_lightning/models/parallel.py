"""Explains replicas without talking to other processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.parallel import DistributedDataParallel

_SYNCHRONISING = (
    "require_backward_grad_sync",
    "require_forward_param_sync",
    "find_unused_parameters",
    "static_graph",
)


@contextmanager
def without_communication(model: nn.Module) -> Iterator[None]:
    """Let a process call its replica alone: no buffers are broadcast, no gradients awaited."""
    replicas = [module for module in model.modules() if isinstance(module, DistributedDataParallel)]
    kept = [(replica, {n: getattr(replica, n) for n in _SYNCHRONISING}) for replica in replicas]
    try:
        for replica in replicas:
            for name in _SYNCHRONISING:
                setattr(replica, name, False)
        yield
    finally:
        for replica, flags in kept:
            for name, flag in flags.items():
                setattr(replica, name, flag)
