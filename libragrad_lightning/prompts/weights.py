"""Which weights something was computed with, and whether they are still the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Weights:
    """Tensors that something was computed with, and what they held then.

    Attributes:
        tensors: The tensors.
        states: What tells whether they were written to, or exchanged, in their order.
        norms: Their L2 norms `[N]`: writing through `.data` leaves no other trace.
    """

    tensors: tuple[Tensor, ...]
    states: tuple[tuple[int, int], ...]
    norms: Tensor

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Weights:
        """Remember what tensors hold."""
        return cls(tuple(tensors), tuple(map(_state, tensors)), _norms(tensors))

    def are_those_of(self, model: nn.Module | None) -> bool:
        """Return whether the tensors hold what they held, and the model holds the tensors."""
        if tuple(map(_state, self.tensors)) != self.states:
            return False
        held = {id(t) for t in _held(model)}
        named = [t for t in self.tensors if isinstance(t, nn.Parameter)]
        if model is not None and not all(id(t) in held for t in named):
            return False
        return bool(torch.equal(_norms(self.tensors), self.norms))


def with_weights(compute: Callable[[], _Result]) -> tuple[_Result, Weights]:
    """Compute something, and return with it the weights that were used.

    Those are all floating-point tensors that operations were given and that none had returned.
    """
    mode = _Given()
    with mode:
        result = compute()
    return result, Weights.of(mode.used())


class _Given(TorchDispatchMode):
    """Remembers what operations are given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: dict[int, Tensor] = {}
        self._given: dict[int, Tensor] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        for leaf in tree_leaves((list(args), dict(kwargs or {}))):
            if isinstance(leaf, Tensor) and id(leaf) not in self._made:
                self._given[id(leaf)] = leaf
        result = func(*args, **(kwargs or {}))
        self._made |= {id(t): t for t in tree_leaves(result) if isinstance(t, Tensor)}
        return result

    def used(self) -> list[Tensor]:
        return [t for t in self._given.values() if t.is_floating_point()]


def _held(model: nn.Module | None) -> list[Tensor]:
    return [] if model is None else [*model.parameters(), *model.buffers()]


def _state(tensor: Tensor) -> tuple[int, int]:
    return (-1 if tensor.is_inference() else tensor._version, tensor.data_ptr())


def _norms(tensors: Sequence[Tensor]) -> Tensor:
    if not tensors:
        return torch.zeros(0)
    wide = [torch.promote_types(t.dtype, torch.float32) for t in tensors]
    norms = [
        torch.linalg.vector_norm(t.detach(), dtype=dtype).double()
        for t, dtype in zip(tensors, wide, strict=True)
    ]
    return torch.stack([norm.to(norms[0].device) for norm in norms])
