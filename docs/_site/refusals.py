"""What the package refuses, read from its source: ``python docs/_site/refusals.py``.

The page on troubleshooting says between which marks the refusals of which files belong; this writes
them there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
_MARKED = re.compile(r"(<!-- refusals of (.*?) -->\n).*?(<!-- end of refusals -->)", re.DOTALL)
_ERRORS = re.compile(r"(Error|Exception)$")
_UNFOUNDED = {"NotImplementedError", "KeyError"}
"""What is raised by programming errors, without a sentence."""


def sources() -> list[Path]:
    """Return the files of the package."""
    folders = (ROOT / "libragrad_lightning", ROOT / "callbacks")
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def refusals(path: Path) -> list[str]:
    """Return the sentences of a file's errors, with ``…`` for what is filled in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = dict(_constants(tree))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args)
    found = (
        _text(call.args[0], texts)
        for call in calls
        if _ERRORS.search(name := ast.unparse(call.func)) and name not in _UNFOUNDED
    )
    return list(dict.fromkeys(text for text in found if len(re.findall(r"\w{2,}", text)) > 2))


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield what names, and functions that return a text, stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        if isinstance(node, ast.FunctionDef) and isinstance(node.body[-1], ast.Return):
            value = node.body[-1].value
            if isinstance(value, ast.Constant | ast.JoinedStr):
                yield node.name, value


def _text(node: ast.expr, texts: dict[str, ast.expr]) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value, texts) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        known = isinstance(node.value, ast.Name | ast.Call)
        return _text(node.value, texts) if known else "…"
    if isinstance(node, ast.BinOp):
        return _text(node.left, texts) + _text(node.right, texts)
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Name) and node.id in texts:
        others = {name: text for name, text in texts.items() if name != node.id}
        return _text(texts[node.id], others)
    return "…"


def _owners(text: str) -> dict[str, list[Path]]:
    """Return which files belong to each mark: to that which names most of their path."""
    marks = [mark[2] for mark in _MARKED.finditer(text)]
    owned: dict[str, list[Path]] = {mark: [] for mark in marks}
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        fitting = [(place, m) for m in marks for place in m.split() if name.startswith(place)]
        if fitting:
            owned[max(fitting, key=lambda found: len(found[0]))[1]].append(path)
    return owned


def page(text: str) -> str:
    """Return the page with the refusals of today."""
    owned = _owners(text)

    def section(mark: re.Match[str]) -> str:
        found = dict.fromkeys(line for path in owned[mark[2]] for line in refusals(path))
        lines = "".join(f"- {line}\n" for line in found)
        return f"{mark[1]}\n{lines}\n{mark[3]}"

    return _MARKED.sub(section, text)


def uncovered(text: str) -> list[str]:
    """Return the files with refusals that belong to no mark of the page."""
    owned = {path for paths in _owners(text).values() for path in paths}
    return [str(path) for path in sources() if path not in owned and refusals(path)]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
