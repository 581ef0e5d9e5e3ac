"""Forward hooks that stand on modules inside of a context only, to look or to replace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from libragrad_lightning.models.calls import Argument, argument_of, first_tensor
from libragrad_lightning.models.feature_view import FeatureView


@contextmanager
def argument_seen(
    module: nn.Module, argument: Argument, use: Callable[[Tensor], Tensor | None]
) -> Iterator[None]:
    """Show an argument of a module to a function, whose answer replaces it unless it is None."""

    def hook(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        replacement = use(argument_of(args, kwargs, argument))
        if replacement is None:
            return None
        if isinstance(argument, str):
            return args, {**kwargs, argument: replacement}
        return (*args[:argument], replacement, *args[argument + 1 :]), kwargs

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def output_seen(module: nn.Module, use: Callable[[Tensor], None]) -> Iterator[None]:
    """Show the tensor that a module returns to a function."""

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None:
            use(tensor)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def tables_read_at(
    module: nn.Module, patches: Tensor, full: Sequence[FeatureView]
) -> Iterator[None]:
    """Let a block see its position tables at some patches `[B, K]` only.

    A table is a tensor without a batch axis and with one row for every patch, `[N, d]` or
    `[heads, N, d]`, such as timm's rotary embeddings.
    """

    def at_patches(table: Any) -> Any:
        rows = full[0].grid[0] * full[0].grid[1]
        if not isinstance(table, Tensor) or table.dim() not in (2, 3) or table.shape[-2] != rows:
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
