"""Which page of the reference documents what several packages export."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

_LISTED = re.compile(r"^   (libragrad_lightning[.\w]*)$", re.MULTILINE)


def packages(docs: Path) -> list[str]:
    """Return the packages that the reference lists, in its order."""
    return _LISTED.findall((docs / "api.md").read_text(encoding="utf-8"))


def documented_elsewhere(names: list[str]) -> dict[str, dict[str, str]]:
    """Return for every package which of its names an earlier one documents, and where.

    Objects have one description each: where a name is first exported, as far down the list of
    packages as it gets.
    """
    homes: dict[int, str] = {}
    found: dict[str, dict[str, str]] = {}
    for package in names:
        module = import_module(package)
        found[package] = {}
        for name in module.__all__:
            home = homes.setdefault(id(getattr(module, name)), f"{package}.{name}")
            if not home.startswith(f"{package}."):
                found[package][name] = home
    return found
