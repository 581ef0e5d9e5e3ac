"""Where a model ends: which objects are its own, and which belong to what runs it."""

from __future__ import annotations

import sys
from concurrent.futures import Executor
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

from torch import nn

_FRAMEWORKS = frozenset(
    {
        "libragrad_lightning",
        "lightning",
        "lightning_fabric",
        "lightning_utilities",
        "numpy",
        "pytorch_lightning",
        "torch",
        "torchmetrics",
    }
)
"""Trainers, loggers, loaders, datasets and optimizers are instances or subclasses from here."""

_RECORDS = frozenset({"argparse", "collections", "types"})
"""Packages of the standard library whose objects only hold what somebody put into them."""

_BASES = _RECORDS | {"abc", "builtins", "random", "typing"}
"""Packages of the standard library that classes of a model may derive from."""

_AT_WORK = (Thread, BaseProcess, Executor)


class Boundary:
    """Decides which objects belong to a model.

    A class or function belongs to it if its package is not installed (it comes from a script, a
    notebook or the working copy of a project), or if a module of the model comes from the same
    package. The frameworks above and the standard library are never part of a model, nor are
    subclasses of theirs: what they do is not undone.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._packages = {_package(type(module).__module__) for module in model.modules()}
        self._known: dict[tuple[type, bool], bool] = {}

    def owns(self, name: str | None) -> bool:
        """Return whether the model owns what is defined in a Python module of that name."""
        package = _package(name)
        if package in _FRAMEWORKS or package in sys.stdlib_module_names:
            return False
        return package in self._packages or not _is_installed(package)

    def includes(self, kind: type, held_by_function: bool = False) -> bool:
        """Return whether instances of a class belong to the model.

        Args:
            kind: The class.
            held_by_function: Whether a function of the model holds the instance, such as a hook
                that is a method of a callback: its class may derive from a framework's.
        """
        key = (kind, held_by_function)
        if key not in self._known:
            self._known[key] = self._includes(*key)
        return self._known[key]

    def _includes(self, kind: type, held_by_function: bool) -> bool:
        if _package(kind.__module__) not in _RECORDS and not self.owns(kind.__module__):
            return False
        if held_by_function:
            return not issubclass(kind, _AT_WORK)
        bases = {_package(base.__module__) for base in kind.__mro__}
        return bases.isdisjoint((_FRAMEWORKS | sys.stdlib_module_names) - _BASES)


def is_at_work(attributes: dict[str, Any]) -> bool:
    """Return whether an object with these attributes has something run in the background.

    What it does meanwhile is not ours to undo.
    """
    return any(isinstance(value, _AT_WORK) for value in attributes.values())


def _package(name: str | None) -> str:
    return (name or "__main__").partition(".")[0]


@cache
def _is_installed(package: str) -> bool:
    module = sys.modules.get(package)
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    parts = {part for place in places if place for part in Path(place).parts}
    return not parts.isdisjoint(("site-packages", "dist-packages"))
