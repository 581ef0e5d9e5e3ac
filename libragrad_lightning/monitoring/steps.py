"""Watches one validation step of a LightningModule, and lets it run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from libragrad_lightning.audit import (
    SeenStep,
    WatchedStep,
    as_weights_are,
    copied,
    may_compile,
    parameter_owners,
    watched_step,
)
from libragrad_lightning.both_lightnings import in_both


class StepWatcher:
    """Stands in for the next call of a step, and leaves as soon as it begins.

    Args:
        module: The module.
        name: The name of its step.
        batch: The batch that the step will be given.
        only: The path of the only submodule whose calls matter, or None.

    Attributes:
        may_compile: Whether compiled code may run in the step, which watching would compile anew.
    """

    def __init__(
        self, module: pl.LightningModule, name: str, batch: Any, only: str | None = None
    ) -> None:
        self._module, self._name, self._batch, self._only = module, name, batch, only
        self._watched: WatchedStep | None = None
        self._arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.may_compile = module._compiler_ctx is not None or may_compile()
        self._original, self._before = getattr(module, name), vars(module).get(name)
        self._stand_in = vars(module)[name] = _StandIn(self._step, self._original, module, name)

    def leave(self) -> None:
        """Let the module be as it was."""
        if vars(self._module).get(self._name) is self._stand_in:
            if self._before is None:
                del vars(self._module)[self._name]
            else:
                vars(self._module)[self._name] = self._before

    def seen(self) -> SeenStep:
        """Return what was seen."""
        self.leave()
        owners = parameter_owners(self._module)
        return SeenStep(self._module, self._batch, self._watched, owners)

    def seen_again(self) -> SeenStep:
        """Run the step again, without compilation, and return what is seen.

        Call it in the state in which models are explained.
        """
        takes_iterator = is_param_in_hook_signature(
            self._original, "dataloader_iter", explicit=True
        )
        if self._arguments is None or takes_iterator:
            return SeenStep(self._module, self._batch, None)
        # Copies made in inference mode could not be overwritten outside of it.
        args, kwargs = as_weights_are(copied(self._arguments), self._module)
        context = self._module._compiler_ctx
        step = self._original if context is None else context[f"original_{self._name}"]
        with torch.no_grad(), watched_step(self._module, (args, kwargs), self._only) as watched:
            step(*args, **kwargs)
        return SeenStep(self._module, self._batch, watched, parameter_owners(self._module))

    def _step(self, *args: Any, **kwargs: Any) -> Any:
        self.leave()
        if self.may_compile:
            # The step may overwrite its batch, or take things out of it.
            self._arguments = copied((args, kwargs))
            return self._original(*args, **kwargs)
        with watched_step(self._module, (args, kwargs), self._only) as watched:
            self._watched = watched
            return self._original(*args, **kwargs)


class _StandIn:
    """What stands in for a step; a copy of the module has the step itself in its place."""

    def __init__(
        self, call: Callable[..., Any], original: Any, module: pl.LightningModule, name: str
    ) -> None:
        self._call, self._module, self._name = call, module, name
        # Lightning asks the signature which arguments a step wants.
        self.__wrapped__ = getattr(original, "__wrapped__", original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _step_of, (self._module, self._name)


def _step_of(module: pl.LightningModule, name: str) -> Any:
    return getattr(type(module), name).__get__(module)


@contextmanager
def silent(module: pl.LightningModule) -> Iterator[None]:
    """Let `self.log` and `self.log_dict` of a module and its parts do nothing."""
    parts = [m for m in module.modules() if isinstance(m, in_both(pl.LightningModule))]
    names = ("log", "log_dict")
    before = [(part, {n: vars(part)[n] for n in names if n in vars(part)}) for part in parts]
    try:
        for part in parts:
            vars(part).update(dict.fromkeys(names, _say_nothing))
        yield
    finally:
        for part, own in before:
            for name in names:
                vars(part).pop(name, None)
            vars(part).update(own)


def _say_nothing(*_: Any, **__: Any) -> None:
    pass
