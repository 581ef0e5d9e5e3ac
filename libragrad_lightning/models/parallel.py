"""Explains replicas without talking to other processes, and refuses what is sharded over them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel

from libragrad_lightning.models.errors import UnreadableModelError

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


def check_unsharded(model: nn.Module) -> None:
    """Refuse a model whose weights are spread over processes.

    Raises:
        UnreadableModelError: If a module is sharded by FSDP.
    """
    for path, module in model.named_modules():
        if isinstance(module, FSDPModule | FullyShardedDataParallel):
            raise UnreadableModelError(
                f"{path or type(model).__name__} is sharded by FSDP, which gathers weights only "
                "while a module runs; load its full state dict (torch.distributed.checkpoint."
                "state_dict.get_model_state_dict with StateDictOptions(full_state_dict=True)) into "
                "a model that is not sharded, and pass that as `model`."
            )
