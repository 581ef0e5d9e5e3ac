"""Puts a model into the state that an explanation needs, and puts everything back.

One owner for everything that an explanation could disturb: gradient and inference mode, autocast,
training flags, `requires_grad`, buffers, attributes and caches, objects of the model and of its
hooks, random number streams, gradient checkpointing, replicas and weights of other processes, and
the stance of `torch.compile`. Gradients are never accumulated, so `.grad` needs no care.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from libragrad_lightning.models.memory import preserved_memory
from libragrad_lightning.models.parallel import without_communication
from libragrad_lightning.models.recurrent import recorded_steps
from libragrad_lightning.models.sharding import gathered_weights
from libragrad_lightning.models.wrappers import unwrapped

_ONE_AT_A_TIME = threading.RLock()
"""Random streams, the stance of `torch.compile` and a model's flags belong to all threads."""


@contextmanager
def explanation_state(model: nn.Module) -> Iterator[None]:
    """Let a model be explained, and leave no trace of it.

    Inside: evaluation mode, gradients enabled, no autocast, eager execution, no checkpointing, no
    activation that overwrites its input, no communication with other processes. Weights that FSDP
    spreads over processes are gathered (`gathered_weights`). Frozen parameters
    that may act as biases require a gradient, so that they are in the graph. LSTMs are recorded
    step by step. Hooks of forward passes are called, since some compute weights; hooks of modules
    for backward passes are not. A forward pass gives the same values as outside, to the last bit.

    Afterwards everything that a forward pass has changed is as it was, in the model, its objects
    and what its hooks hold. That includes changes by other code that ran inside: results belong
    into variables of its own. Not undone is what happens to globals, classes, files, or objects of
    libraries, nor what a loader or logger does; a tensor that no module holds itself is only put
    back if it is small (16 MiB, all of them together).

    Threads that explain, the same model or another one, wait for each other. A thread that uses the
    model in another way meanwhile would find it in evaluation mode.

    Args:
        model: The whole module whose submodules take part in the forward pass.

    Raises:
        UnreadableModelError: If weights are spread over processes and cannot be gathered.
    """
    with ExitStack() as stack:
        stack.enter_context(_ONE_AT_A_TIME)
        stack.enter_context(gathered_weights(model))
        stack.enter_context(_random_streams(model))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast(_device(model).type, enabled=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(unwrapped(model))
        stack.enter_context(preserved_memory(model))
        stack.enter_context(without_communication(model))
        stack.enter_context(_evaluation(model))
        stack.enter_context(_bias_gradients(model))
        stack.enter_context(recorded_steps(model))
        yield


def _device(model: nn.Module) -> torch.device:
    for parameter in model.parameters():
        return parameter.device
    return torch.device("cpu")


@contextmanager
def _random_streams(model: nn.Module) -> Iterator[None]:
    # `random_device_type` must not be given the CPU, and CUDA must not be initialized by us.
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    # Flags are set directly: `train()` and `set_grad_checkpointing()` may be overridden.
    modules = list(model.modules())
    flags = [(m, "training", m.training) for m in modules if m.training]
    flags += [(m, name, True) for m in modules for name in _disturbing_flags(m)]
    try:
        for module, name, _ in flags:
            setattr(module, name, False)
        yield
    finally:
        for module, name, value in flags:
            setattr(module, name, value)


def _disturbing_flags(module: nn.Module) -> list[str]:
    """Name the flags of a module that keep its graph from being read.

    An activation that overwrites a view leaves no trace of what it computed; overwriting by ReLU is
    harmless.
    """
    names = (
        ("grad_checkpointing",) if type(module) is nn.ReLU else ("grad_checkpointing", "inplace")
    )
    return [name for name in names if getattr(module, name, False) is True]


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
