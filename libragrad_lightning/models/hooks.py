"""Forward hooks that let blocks see their position tables at some patches only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def tables_read_at(module: nn.Module, count: int, patches: Tensor) -> Iterator[None]:
    """Let a block see its position tables at some patches only.

    A table is a tensor without a batch axis and with one row for every patch, `[N, d]` or
    `[heads, N, d]`, such as timm's rotary embeddings.

    Args:
        module: The block.
        count: The number of patches.
        patches: Which of them are there, `[B, K]`.
    """

    def at_patches(table: Any) -> Any:
        if not isinstance(table, Tensor) or table.dim() not in (2, 3) or table.shape[-2] != count:
            return table
        gathered = table[..., patches, :]
        return gathered[:, None] if table.dim() == 2 else gathered.transpose(0, 1)

    def hook(
        _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        tables = {name: at_patches(value) for name, value in kwargs.items()}
        return (*args[:1], *map(at_patches, args[1:])), tables

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
