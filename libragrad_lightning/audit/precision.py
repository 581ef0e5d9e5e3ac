"""Explains half-precision weights in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from libragrad_lightning.audit.trees import mapped

_HALF = (torch.float16, torch.bfloat16)


@contextmanager
def in_float32(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Let float32 copies stand in for half-precision parameters and buffers.

    The parameters themselves are out of reach inside, and back in their places afterwards, so that
    neither they nor what belongs to them (gradients, optimizer states, buckets of other processes)
    is touched.

    Args:
        model: The model.
        wanted: Whether to do anything.
    """
    places = _half_tensors(model) if wanted else []
    copies: dict[int, Tensor] = {}
    dtypes = [(m, m._dtype) for m in model.modules() if vars(m).get("_dtype") in _HALF and wanted]
    try:
        for holder, name, tensor in places:
            holder[name] = copies.setdefault(id(tensor), _float32(tensor))
        for module, _ in dtypes:
            module._dtype = torch.float32  # type: ignore[assignment]
        yield
    finally:
        for holder, name, tensor in places:
            holder[name] = tensor
        for module, dtype in dtypes:
            module._dtype = dtype


def floating_dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype in which a module expects images."""
    floating = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(floating, torch.float32)


def as_weights_are(tree: Any, module: nn.Module) -> Any:
    """Return arguments with float32 in place of half precision, unless the weights are half too.

    FSDP casts what a module is given with its weights; gathered weights are not cast.

    Args:
        tree: Nested arguments.
        module: The module that they are for.
    """
    if floating_dtype(module) in _HALF:
        return tree
    return mapped(tree, lambda _, t: t.float() if isinstance(t, Tensor) and t.dtype in _HALF else t)


def _half_tensors(model: nn.Module) -> list[tuple[dict[str, Any], str, Tensor]]:
    return [
        (holder, name, tensor)
        for module in model.modules()
        for holder in (module._parameters, module._buffers)
        for name, tensor in holder.items()
        if tensor is not None and tensor.dtype in _HALF
    ]


def _float32(tensor: Tensor) -> Tensor:
    wide = tensor.detach().float()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(wide, requires_grad=tensor.requires_grad)
    return wide
