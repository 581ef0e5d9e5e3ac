"""Records LSTMs step by step, so that their gates can be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


@contextmanager
def recorded_steps(model: nn.Module) -> Iterator[None]:
    """Let every LSTM of a model leave its steps in the graph, with the values it has without us.

    On CPUs, oneDNN computes an LSTM below float64 as one operation that hides its gates. Here the
    LSTM is recorded a second time without oneDNN. That differs in the last bits, so the values of
    the first computation are put in their place: the output stays what it is to the last bit.
    """
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.LSTM):
                handle = module.register_forward_hook(_record, prepend=True, with_kwargs=True)
                stack.callback(handle.remove)
        yield


def _record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    fused = _tensors(output)
    if not any(tensor.requires_grad and tensor.device.type == "cpu" for tensor in fused):
        return None
    with _without_onednn():
        recorded = module.forward(*args, **kwargs)
    for tensor, value in zip(_tensors(recorded), fused, strict=True):
        # Not an operation of the graph: no node has saved these tensors yet.
        tensor.data.copy_(value.data)
    return recorded


def _tensors(output: Any) -> tuple[Tensor, ...]:
    """Return sequence, hidden state and cell state."""
    sequence, states = output
    return (sequence.data if isinstance(sequence, PackedSequence) else sequence, *states)


@contextmanager
def _without_onednn() -> Iterator[None]:
    enabled = torch.backends.mkldnn.enabled
    try:
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
        yield
    finally:
        torch.backends.mkldnn.enabled = enabled
