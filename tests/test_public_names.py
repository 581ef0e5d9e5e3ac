"""What the page lists as public is what the packages export."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import libragrad_lightning
from libragrad_lightning.commands import COMMANDS

PAGE = (Path(__file__).parents[1] / "docs" / "public_names.md").read_text()
WHOLE, _, PART = PAGE.partition("## Packages that export a few public names")
SECTION = re.compile(r"^### `([\w.]+)`\n\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)


def listed(text):
    """The names in the last paragraph of every section, by its package."""
    return {
        package: re.findall(r"`(\w+)`", body.strip().rpartition("\n\n")[2])
        for package, body in SECTION.findall(text)
    }


@pytest.mark.parametrize(("package", "names"), listed(WHOLE).items())
def test_packages_export_what_is_public_and_nothing_else(package, names):
    assert sorted(names) == sorted(importlib.import_module(package).__all__)


@pytest.mark.parametrize(("package", "names"), listed(PART).items())
def test_others_export_what_of_them_is_public(package, names):
    exported = importlib.import_module(package).__all__
    assert names
    assert set(names) < set(exported)


def test_every_package_is_said_to_be_public_or_not():
    prefix = f"{libragrad_lightning.__name__}."
    rooms = {m.name for m in pkgutil.iter_modules(libragrad_lightning.__path__, prefix) if m.ispkg}
    unlisted = rooms - {*listed(PAGE)}
    assert {name.removeprefix(prefix) for name in unlisted} == {"monitoring", "commands", "demo"}
    assert all(f"`{name.removeprefix(prefix)}`" in PAGE for name in unlisted)


def public_objects():
    for package, names in listed(PAGE).items():
        module = importlib.import_module(package)
        yield from ((f"{package}.{name}", getattr(module, name)) for name in names)


def test_what_is_public_says_what_it_is():
    documented = {n: o for n, o in public_objects() if inspect.isclass(o) or inspect.isfunction(o)}
    assert len(documented) > 100
    assert [name for name, value in documented.items() if not inspect.getdoc(value)] == []


def test_a_name_means_one_thing():
    """Wherever a public name is exported, it is the same object."""
    found = {}
    for name, value in public_objects():
        found.setdefault(name.rpartition(".")[2], []).append(value)
    assert {n for n, values in found.items() if any(v is not values[0] for v in values)} == set()


def test_commands_are_listed():
    commands = re.findall(r"`(?:libragrad )?(\w+)`", PAGE.partition("## Commands")[2])
    assert commands[:9] == ["fit", "validate", "test", *COMMANDS]
