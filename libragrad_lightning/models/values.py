"""Keeps copies of tensors, arrays and random streams, and writes them back in place."""

from __future__ import annotations

import random
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

Restore: TypeAlias = Callable[[], object]
"""Puts one thing back."""

ARRAYS = (np.ndarray, bytearray, array)
STREAMS = (
    torch.Generator,
    np.random.Generator,
    np.random.BitGenerator,
    np.random.RandomState,
    random.Random,
)

LARGEST = 16 * 2**20
"""How many bytes of tensors and arrays that no module holds itself are copied, small ones first."""


def is_kept(tensor: Tensor) -> bool:
    """Return whether a forward pass can write to a tensor, and its values can be put back."""
    return not tensor.is_inference() and tensor.device.type != "meta"


def kept_tensor(tensor: Tensor) -> Restore:
    """Copy a tensor; what it requires, its shape and its values are put back."""
    place = tensor.detach()
    return partial(_restore_tensor, tensor, place, place.clone(), tensor._version)


def _restore_tensor(tensor: Tensor, place: Tensor, value: Tensor, version: int) -> None:
    plain = _is_plain(tensor)
    with torch.no_grad():
        if plain and not tensor.is_set_to(place):
            tensor.data = place
        if tensor._version != version:
            _write(tensor, value)
        elif plain and _may_differ(tensor, value):  # `.data` was written to
            _write(tensor.data, value)


def _is_plain(tensor: Tensor) -> bool:
    special = tensor.is_quantized or tensor.is_nested or tensor.is_conj() or tensor.is_neg()
    known = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
    return known and not special


def _write(tensor: Tensor, value: Tensor) -> None:
    for axis in range(tensor.dim() if _is_plain(tensor) else 0):
        if tensor.stride(axis) == 0 and tensor.shape[axis] > 1:  # expanded: all places are one
            tensor, value = tensor.narrow(axis, 0, 1), value.narrow(axis, 0, 1)
    tensor.copy_(value)


def _may_differ(tensor: Tensor, value: Tensor) -> bool:
    if tensor.device.type != "cpu":  # comparing would wait for the device
        return True
    try:
        return not torch.equal(tensor, value)
    except NotImplementedError:  # dtypes that are only stored
        return False


def kept_leaf(tensor: Tensor) -> Restore:
    """Remember that a tensor has no graph, which writing to it in place may give it."""
    return partial(_restore_leaf, tensor, tensor.requires_grad)


def _restore_leaf(tensor: Tensor, requires_grad: bool) -> None:
    if not tensor.is_leaf and not tensor._is_view():
        tensor.detach_()
    if tensor.is_leaf and tensor.requires_grad != requires_grad:
        tensor.requires_grad_(requires_grad)


def kept_array(held: Any) -> Restore:
    """Copy an array or the like; its values are put back."""
    return partial(_restore_array, held, held[...].copy() if _is_numpy(held) else held[:])


def _restore_array(held: Any, value: Any) -> None:
    if not _is_numpy(held):
        if held != value:
            held[:] = value
    elif held.shape == value.shape and held.tobytes() != value.tobytes():
        held[...] = value


def _is_numpy(held: Any) -> bool:
    return isinstance(held, np.ndarray)


def kept_within(held: Iterable[Any], limit: int) -> Iterator[Restore]:
    """Copy tensors and arrays, the small ones first, until a number of bytes is reached."""
    for value in sorted(held, key=_size):
        limit -= _size(value)
        if not isinstance(value, Tensor):
            if limit >= 0:
                yield kept_array(value)
        elif limit >= 0:
            yield kept_tensor(value)
        else:
            yield partial(_check_unwritten, value, value._version)


def _size(held: Any) -> int:
    if isinstance(held, Tensor):
        return held.numel() * held.element_size()
    return int(held.nbytes) if _is_numpy(held) else len(held) * getattr(held, "itemsize", 1)


def _check_unwritten(tensor: Tensor, version: int) -> None:
    if tensor._version != version:
        warnings.warn(
            f"The forward pass wrote to a tensor {tuple(tensor.shape)} that was too large to be "
            "copied before, so that an explanation has changed it; register it as a buffer of its "
            "module.",
            stacklevel=2,
        )


def kept_stream(stream: Any) -> Restore:
    """Remember the state of a generator of random numbers."""
    if isinstance(stream, torch.Generator):
        return partial(stream.set_state, stream.get_state())
    if isinstance(stream, np.random.RandomState):
        return partial(stream.set_state, stream.get_state(legacy=False))
    if isinstance(stream, random.Random):
        return partial(stream.setstate, stream.getstate())
    bits = stream.bit_generator if isinstance(stream, np.random.Generator) else stream
    return partial(setattr, bits, "state", bits.state)
