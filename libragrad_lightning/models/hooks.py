"""Forward hooks: on all modules of a model, and on blocks that read position tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

from torch import Tensor, nn

Enter: TypeAlias = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]
"""Sees the arguments of a call, and may return others."""

Leave: TypeAlias = Callable[[nn.Module, tuple[Any, ...], Any], Any]
"""Sees the arguments of a call and what it returned, and may return something else."""


@contextmanager
def hooked_modules(model: nn.Module, hooks: Callable[[str], tuple[Enter, Leave]]) -> Iterator[None]:
    """Let hooks stand on a model and all modules in it, before and behind those of others.

    Args:
        model: The model.
        hooks: Makes the two hooks of a module from its path.
    """
    with ExitStack() as stack:
        for path, module in model.named_modules():
            enter, leave = hooks(path)
            handle = module.register_forward_pre_hook(enter, with_kwargs=True, prepend=True)
            stack.callback(handle.remove)
            stack.callback(module.register_forward_hook(leave).remove)
        yield


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
