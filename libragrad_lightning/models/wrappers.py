"""Takes what other libraries put around modules, and on them, out of the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

_INNER = {
    ("torch", "ActivationWrapper"): "_checkpoint_wrapped_module",
    ("lightning", "_FabricModule"): "_forward_module",
    ("lightning_fabric", "_FabricModule"): "_forward_module",
}
"""Where modules that stand around others keep them, by package and class."""


@contextmanager
def unwrapped(model: nn.Module) -> Iterator[None]:
    """Let parts of a model be called without what others have put around them.

    That is the checkpointing and offloading of activations by `torch.distributed`, and the
    conversions of Fabric.
    """
    wrappers = {m: inner for m in model.modules() if (inner := _inner(m)) is not None}
    with passed_through(wrappers), without_hooks_of(model, "torch.distributed._composable"):
        yield


def _inner(module: nn.Module) -> nn.Module | None:
    for kind in type(module).__mro__:
        name = _INNER.get((kind.__module__.partition(".")[0], kind.__name__))
        if name is not None:
            return module.get_submodule(name)
    return None


@contextmanager
def passed_through(wrappers: Mapping[nn.Module, nn.Module]) -> Iterator[None]:
    """Let modules that stand around others do nothing but call them.

    Args:
        wrappers: The modules in each of them.
    """
    before = {wrapper: dict(vars(wrapper)) for wrapper in wrappers}
    try:
        for wrapper, inner in wrappers.items():
            vars(wrapper)["forward"] = inner
        yield
    finally:
        for wrapper, attributes in before.items():
            vars(wrapper).pop("forward")
            vars(wrapper).update({n: a for n, a in attributes.items() if n == "forward"})


@contextmanager
def without_hooks_of(model: nn.Module, package: str) -> Iterator[None]:
    """Let no hook of a forward pass stand on modules that comes from a package."""
    tables = [t for m in model.modules() for t in (m._forward_pre_hooks, m._forward_hooks) if t]
    before = [(table, dict(table)) for table in tables]
    try:
        for table in tables:
            for key, hook in list(table.items()):
                if str(getattr(hook, "__module__", "")).startswith(package):
                    del table[key]
        yield
    finally:
        for table, hooks in before:
            table.clear()
            table.update(hooks)
