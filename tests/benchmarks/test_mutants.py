"""Slips are small, parse, and leave types, words and checks of ourselves alone."""

import ast

import pytest

from mutants import mutants

CASES = {
    "comparison": ("x < y", ["x <= y", "x >= y"]),
    "arithmetic": ("x + y", ["x - y"]),
    "and/or": ("x and y", ["x or y"]),
    "dropped condition": ("x and y", ["y", "x"]),
    "not": ("not x", ["x"]),
    "sign": ("-x", ["x"]),
    "constant": ("3", ["4", "2"]),
    "exchanged branches": ("x if y else z", ["z if y else x"]),
    "dropped argument": ("f(x, a=1, strict=True)", ["f(x, strict=True)"]),
    "exchanged arguments": ("f(x, y, z)", ["f(y, x, z)", "f(x, z, y)"]),
    "slice": ("x[a:b, :c]", ["x[:b, :c]", "x[a:, :c]", "x[a:b, :]"]),
}


def slips(text, kind=None):
    """The texts with a slip."""
    return [m.applied(text) for m in mutants("file.py", text) if kind in (None, m.slip)]


def plain(text):
    return ast.dump(ast.parse(text))


@pytest.mark.parametrize("kind", CASES)
def test_expressions(kind):
    text, expected = CASES[kind]
    assert [plain(found) for found in slips(text, kind)] == [plain(text) for text in expected]


def test_statements():
    text = (
        "def f(x):\n    x.run()\n    x.y = x\n    z = x\n    if x:\n        raise x\n    return z\n"
    )
    removed = [found.splitlines() for found in slips(text, "removed statement")]
    lines = text.splitlines()
    changed = [[i for i, line in enumerate(lines) if found[i] != line] for found in removed]
    assert changed == [[1], [2], [5]]
    assert slips(text, "returned None") == [text.replace("return z", "return None")]
    assert slips(text, "negated condition") == [text.replace("if x", "if (not x)")]
    assert slips("while x:\n    break", "break/continue") == ["while x:\n    continue"]


@pytest.mark.parametrize(
    "text",
    [
        '"""Of 3 words."""',
        "def f(x: Literal[1] | None = None) -> tuple[int, 3]: ...",
        "assert x > 0",
        "Name: TypeAlias = A | 3",
        "isinstance(x, A | B)",
        "max(x, y)",
        "zip(x, strict=True)",
        "import x, y",
        'f"{x - 1}"',
        '"a" + b',
        "@frozen(True)\nclass X:\n    pass",
    ],
)
def test_what_is_left_alone(text):
    assert slips(text) == []


def test_every_slip_has_a_name_that_stays_while_its_function_does():
    text = "def f(x):\n    return (x + 1) * (x + 1)\n"
    found = mutants("file.py", text)
    keys = [m.key for m in found]
    assert len(set(keys)) == len(keys) == 8
    moved = mutants("file.py", "# é\nN = x\n\n" + text)
    assert [m.key for m in moved] == keys
    assert [m.line for m in moved] == [m.line + 3 for m in found]
    assert {m.applied(text) for m in found} >= {text.replace("* (x + 1)", "* (x + 2)")}
