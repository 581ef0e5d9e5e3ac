"""Gathers weights that FSDP spreads over processes, for as long as a model is explained.

They are gathered once, and not block by block as FSDP does: processes have other numbers of images,
of sizes and of chunks that fit into memory, so that their forward passes cannot be told to be as
many, and one that fails would leave the others waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor

from libragrad_lightning.models.device_memory import free_bytes
from libragrad_lightning.models.errors import UnreadableModelError, WeightsTooLargeError
from libragrad_lightning.models.processes import gathered, is_grouped
from libragrad_lightning.models.shared_images import parallelism_within_images
from libragrad_lightning.models.wrappers import passed_through, without_hooks_of

_HALF = (torch.float16, torch.bfloat16)
_ELSEWHERE = (
    "load its full state dict (`torch.distributed.checkpoint.state_dict.get_model_state_dict` with "
    "`StateDictOptions(full_state_dict=True)`) into a model that is not sharded, and explain that"
)


@dataclass(frozen=True)
class _Place:
    """Where a module holds a parameter of which this process has a part.

    Attributes:
        holder: The parameters of the module.
        name: The name of the parameter.
        part: The parameter, with the part of this process.
    """

    holder: dict[str, Any]
    name: str
    part: DTensor


def is_sharded(model: nn.Module) -> bool:
    """Return whether weights of a model are spread over processes, and not gathered now."""
    if not is_grouped():
        return False
    wrapped = any(isinstance(m, FSDPModule) or _is_wrapper(m) for m in model.modules())
    return wrapped or parallelism_within_images(model) is not None


def reduces_precision(model: nn.Module) -> bool:
    """Return whether FSDP lets a module, or some of its parts, compute in half precision."""
    policies = [
        *(m._get_fsdp_state()._mp_policy for m in model.modules() if isinstance(m, FSDPModule)),
        *(m.mixed_precision for m in model.modules() if isinstance(m, FullyShardedDataParallel)),
    ]
    return any(getattr(policy, "param_dtype", None) in _HALF for policy in policies)


def own_weights(model: nn.Module) -> list[Tensor]:
    """Return the parameters of a model, or what this process keeps of those that are spread.

    FSDP may have left others in the modules, gathered for the forward pass before.
    """
    places = _places(model)
    spread = {id(place.holder[place.name]) for place in places}
    own = [place.part.to_local() for place in places]
    for wrapper in (m for m in model.modules() if isinstance(m, FullyShardedDataParallel)):
        spread.update(map(id, wrapper.parameters()))
        if wrapper._handle is not None:
            flat = wrapper._handle.flat_param
            own.append(getattr(flat, "_local_shard", flat))
    return own + [p for p in model.parameters() if id(p) not in spread]


@contextmanager
def gathered_weights(model: nn.Module) -> Iterator[None]:
    """Let every process have all weights of a model that FSDP spreads over them.

    Every process of the model has to enter it, and waits there for the others. Inside, parameters
    are whole tensors of the precision in which they are trained, and modules are what they were
    before FSDP was applied: none of them gathers, casts or waits, so that each process may explain
    as many images as it has. Afterwards everything is in its place again, without a word to other
    processes; the parts, their gradients, and what FSDP keeps have not been touched.

    It does nothing if weights are not spread, or have been gathered.

    Args:
        model: The outermost module that FSDP was applied to, or one that holds it.

    Raises:
        UnreadableModelError: If weights are spread by tensor parallelism.
        WeightsTooLargeError: If a process has no room for all weights; raised in every process.
    """
    if not is_sharded(model):
        yield
        return
    _check_data_parallel(model)
    places = _places(model)
    wrappers = [m for m in model.modules() if isinstance(m, FullyShardedDataParallel)]
    _check_room(model, _bytes_of(places, wrappers))
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        if wrappers:
            whole = FullyShardedDataParallel.summon_full_params(model, writeback=False)
            stack.enter_context(whole)
            stack.enter_context(passed_through({w: w.module for w in wrappers}))
        stack.enter_context(_whole(places))
        stack.enter_context(without_hooks_of(model, "torch.distributed.fsdp"))
        stack.enter_context(_own_classes(model))
        yield


def _is_wrapper(module: nn.Module) -> bool:
    return isinstance(module, FullyShardedDataParallel) and "forward" not in vars(module)


def parameter_groups(module: FSDPModule) -> list[Any]:
    """Return what FSDP2 keeps of the parameters of a module: one group, or several in newer torch.

    Args:
        module: What `fully_shard` has returned.
    """
    state: Any = module._get_fsdp_state()
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    return [] if state._fsdp_param_group is None else [state._fsdp_param_group]


def _places(model: nn.Module) -> list[_Place]:
    """Return where the parameters are that FSDP2 manages."""
    found = []
    groups = (g for m in model.modules() if isinstance(m, FSDPModule) for g in parameter_groups(m))
    for group in dict.fromkeys(groups):  # several modules may share one
        for managed in group.fsdp_params:
            info = managed._module_info
            modules = (info.module, *info.shared_modules)
            names = (info.param_name, *info.shared_param_names)
            for module, name in zip(modules, names, strict=True):
                there = module._parameters[name]
                part = there if isinstance(there, DTensor) else managed.sharded_param
                found.append(_Place(module._parameters, name, cast(DTensor, part)))
    return found


def _check_data_parallel(model: nn.Module) -> None:
    kind = parallelism_within_images(model)
    if kind is not None:
        raise UnreadableModelError(
            f"{type(model).__name__} is spread over processes by {kind} parallelism, so that none "
            "of them computes the scores of an image alone; spread it by `fully_shard` alone, as "
            f"`ModelParallelStrategy(tensor_parallel_size=1)` does, or {_ELSEWHERE}."
        )


def _bytes_of(places: list[_Place], wrappers: list[FullyShardedDataParallel]) -> int:
    """Return what all weights take together."""
    parts = {id(place.part): place.part for place in places}.values()
    sizes = [part.numel() * part.element_size() for part in parts]
    for wrapper in wrappers:
        if (handle := wrapper._handle) is not None:
            flat = handle.flat_param
            sizes.append(flat._unpadded_unsharded_size.numel() * flat.element_size())
    return sum(sizes)


def _check_room(model: nn.Module, size: int) -> None:
    """Refuse weights that one of the processes has no room for."""
    device = next(model.parameters()).device
    room = min((free for free in gathered(free_bytes(device)) if free is not None), default=size)
    if room < size:
        raise WeightsTooLargeError(
            f"The weights of {type(model).__name__} are gathered to be explained, which takes "
            f"{size / 2**30:.3g} GiB in every process, and one has {room / 2**30:.3g} GiB left; "
            f"use smaller batches, or {_ELSEWHERE}."
        )


@contextmanager
def _whole(places: list[_Place]) -> Iterator[None]:
    """Let whole tensors stand in for the parts that this process has."""
    before = [place.holder[place.name] for place in places]
    whole: dict[int, nn.Parameter] = {}
    try:
        for place in places:
            if id(place.part) not in whole:
                whole[id(place.part)] = _gathered(place.part)
            place.holder[place.name] = whole[id(place.part)]
        yield
    finally:
        for place, parameter in zip(places, before, strict=True):
            place.holder[place.name] = parameter


def _gathered(part: DTensor) -> nn.Parameter:
    with torch.no_grad():
        # Parts that are offloaded are gathered where the model computes.
        there = cast(DTensor, part.to(part.device_mesh.device_type))
        return nn.Parameter(there.full_tensor(), requires_grad=part.requires_grad)


@contextmanager
def _own_classes(model: nn.Module) -> Iterator[None]:
    """Let modules be of the classes that they had before FSDP2 was applied."""
    modules = [m for m in model.modules() if isinstance(m, FSDPModule)]
    classes = [type(module) for module in modules]
    try:
        for module, kind in zip(modules, classes, strict=True):
            module.__class__ = kind.__mro__[getattr(kind, "_orig_cls_mro_index", 2)]
        yield
    finally:
        for module, kind in zip(modules, classes, strict=True):
            module.__class__ = kind
