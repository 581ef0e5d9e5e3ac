"""Watches one validation step of a LightningModule, and lets it run again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from libragrad_lightning.audit import AuditError, SeenStep, WatchedStep, may_compile, watched_step


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
        original = getattr(module, name)
        self.may_compile = module._compiler_ctx is not None or may_compile(module, original)
        self._original, self._before = original, vars(module).get(name)
        self._again = partial(original, batch)

        def step(*args: Any, **kwargs: Any) -> Any:
            return self._step(*args, **kwargs)

        # Lightning asks the signature which arguments a step wants.
        step.__wrapped__ = getattr(original, "__wrapped__", original)  # type: ignore[attr-defined]
        self._stand_in = vars(module)[name] = step

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
        return SeenStep(self._module, self._batch, self._watched, self._again)

    def seen_again(self) -> SeenStep:
        """Run the step again, without compilation, and return what is seen.

        Call it in the state in which models are explained.
        """
        context = self._module._compiler_ctx
        if context is None:
            again = self._again
        else:
            original = context[f"original_{self._name}"]
            again = partial(original, *self._again.args, **self._again.keywords)
        with torch.no_grad(), watched_step(self._module, self._batch, only=self._only) as watched:
            again()
        return SeenStep(self._module, self._batch, watched, again)

    def _step(self, *args: Any, **kwargs: Any) -> Any:
        self.leave()
        takes_iterator = is_param_in_hook_signature(
            self._original, "dataloader_iter", explicit=True
        )
        self._again = partial(_refuse if takes_iterator else self._original, *args, **kwargs)
        if self.may_compile:
            return self._original(*args, **kwargs)
        with watched_step(self._module, (args, kwargs), only=self._only) as watched:
            self._watched = watched
            return self._original(*args, **kwargs)


def _refuse(*_: Any, **__: Any) -> Any:
    raise AuditError(
        "LibraGradAudit cannot run a validation step again that takes its batches from an iterator;"
        " pass `forward`, a function `(module, images) -> scores`."
    )


@contextmanager
def silent(module: pl.LightningModule) -> Iterator[None]:
    """Let `self.log` and `self.log_dict` of a module and its parts do nothing."""
    parts = [m for m in module.modules() if isinstance(m, pl.LightningModule)]
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
