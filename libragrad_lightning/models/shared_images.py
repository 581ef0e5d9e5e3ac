"""Tells whether processes compute the scores of an image together, each a part of them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

_BY_HOOKS = {
    "torch.distributed.tensor.experimental": "context",
    "torch.distributed.tensor": "tensor",
}
"""What kind of parallelism has put a hook on a module, by the package of the hook."""


def parallelism_within_images(model: nn.Module) -> str | None:
    """Return ``tensor``, ``context`` or ``pipeline`` if a model is parallel in that way, or None.

    A model that exchanges its context within a step, and not by hooks, is not known from outside.
    """
    return next(_kinds(model), None)


def _kinds(model: nn.Module) -> Iterator[str]:
    for module in model.modules():
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            package = str(getattr(getattr(hook, "func", hook), "__module__", ""))
            yield from (kind for name, kind in _BY_HOOKS.items() if package.startswith(name))
        for value in vars(module).values():
            if type(value).__module__.startswith("torch.distributed.pipelining"):
                yield "pipeline"
    by_fsdp = any(isinstance(module, FSDPModule) for module in model.modules())
    for parameter in model.parameters():
        if isinstance(parameter, DTensor):
            axes = sum(not placement.is_replicate() for placement in parameter.placements)
            if axes > 1 or not by_fsdp:
                yield "tensor"
