"""Puts a model into the state that an explanation needs, and puts everything back.

One owner for everything that an explanation could disturb: gradient and inference mode, autocast,
training flags, `requires_grad`, buffers, caches of tensors, random number streams, gradient
checkpointing and the stance of `torch.compile`. Gradients are never accumulated, so `.grad` needs
no care.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def explanation_state(model: nn.Module) -> Iterator[None]:
    """Let a model be explained, and leave no trace of it.

    Inside: evaluation mode, gradients enabled, no autocast, eager execution, no checkpointing.
    Frozen parameters that may act as biases require a gradient, so that they are in the graph.

    Args:
        model: The whole module whose submodules take part in the forward pass.
    """
    with ExitStack() as stack:
        stack.enter_context(_random_streams(model))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast(_device(model).type, enabled=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_buffers(model))
        stack.enter_context(_caches(model))
        stack.enter_context(_evaluation(model))
        stack.enter_context(_bias_gradients(model))
        yield


def _device(model: nn.Module) -> torch.device:
    for parameter in model.parameters():
        return parameter.device
    return torch.device("cpu")


@contextmanager
def _random_streams(model: nn.Module) -> Iterator[None]:
    # `random_device_type` must not be given the CPU, and CUDA must not be initialised by us.
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _buffers(model: nn.Module) -> Iterator[None]:
    """Put back buffers that a forward pass of the model writes to even in evaluation mode."""
    kept = [(buffer, buffer._version, buffer.detach().clone()) for buffer in _writable(model)]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, version, value in kept:
                if buffer._version != version:
                    buffer.copy_(value)


@contextmanager
def _caches(model: nn.Module) -> Iterator[None]:
    """Empty the caches of tensors that modules keep, and put their contents back.

    LeViT, TinyViT and others cache their attention biases in evaluation mode. A forward pass of
    ours would leave tensors there whose graph is freed soon, and later passes would fail on them.
    """
    kept = [(cache, dict(cache)) for module in model.modules() for cache in _tensor_caches(module)]
    try:
        for cache, _ in kept:
            cache.clear()
        yield
    finally:
        for cache, contents in kept:
            cache.clear()
            cache.update(contents)


def _tensor_caches(module: nn.Module) -> list[dict[Any, Any]]:
    public = [value for name, value in vars(module).items() if not name.startswith("_")]
    dicts = [value for value in public if isinstance(value, dict)]
    return [d for d in dicts if all(isinstance(value, Tensor) for value in d.values())]


def _writable(model: nn.Module) -> list[Tensor]:
    return [buffer for buffer in model.buffers() if not buffer.is_inference()]


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    # Flags are set directly: `train()` and `set_grad_checkpointing()` may be overridden.
    training = [(m, m.training) for m in model.modules()]
    checkpointing = [m for m in model.modules() if getattr(m, "grad_checkpointing", False) is True]
    try:
        for module, _ in training:
            module.training = False
        for module in checkpointing:
            module.grad_checkpointing = False  # type: ignore[assignment]
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for module in checkpointing:
            module.grad_checkpointing = True  # type: ignore[assignment]


@contextmanager
def _bias_gradients(model: nn.Module) -> Iterator[None]:
    frozen = [p for name, p in model.named_parameters() if _is_frozen_bias(name, p)]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _is_frozen_bias(name: str, parameter: nn.Parameter) -> bool:
    # Weights are left alone: `torch.matmul` picks its kernel by their flag, which would change the
    # last bits of the logits.
    weight = parameter.dim() > 1 and "weight" in name.rpartition(".")[2]
    floating = parameter.is_leaf and parameter.is_floating_point()
    return floating and not parameter.requires_grad and not weight
