"""Makes small slips in a source file, one at a time, over its syntax tree.

Every mutant replaces one stretch of the text, so that all other lines stay as they are written.
Types, docstrings, decorators, assertions and the words of messages are left alone.
"""

from __future__ import annotations

import ast
import copy
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_SYMMETRIC = {"max", "min", "equal", "maximum", "minimum", "allclose", "isinstance", "issubclass"}
_TYPES = {"TypeVar", "NewType", "cast", "field"}
_IDLE_KEYWORDS = {"strict", "repr", "stacklevel", "msg"}
"""Arguments that change nothing but checks of ourselves and what is printed."""


@dataclass(frozen=True)
class Mutant:
    """One slip.

    Attributes:
        path: The file, relative to the root.
        place: The function or class that holds it, empty for the module.
        line: Its first line.
        slip: What kind of slip it is.
        before: The text that is replaced.
        after: What replaces it.
        number: Which of several equal slips in the same place it is.
        start: Where the text begins, in bytes.
    """

    path: str
    place: str
    line: int
    slip: str
    before: str
    after: str
    number: int
    start: int

    @property
    def key(self) -> str:
        """What names it as long as its function stays as it is."""
        whole = f"{self.slip}\n{self.before}\n{self.after}\n{self.number}"
        return f"{self.path}::{self.place}::{zlib.crc32(whole.encode()):08x}"

    def applied(self, text: str) -> str:
        """Return the text of the file with the slip."""
        data, before = text.encode(), self.before.encode()
        end = self.start + len(before)
        assert data[self.start : end] == before
        return (data[: self.start] + self.after.encode() + data[end:]).decode()


def mutants(path: str, text: str) -> list[Mutant]:
    """Return all mutants of a file, in the order of their places.

    Args:
        path: The path to write into them.
        text: The text of the file.
    """
    lines = [0]
    for line in text.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    data, seen, found = text.encode(), Counter[tuple[str, ...]](), []
    for place, node, after, slip in _Walk(ast.parse(text)):
        start = lines[node.lineno - 1] + node.col_offset
        end = lines[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        before = data[start:end].decode()
        new = after if isinstance(after, str) else f"({ast.unparse(after)})"
        mutant = Mutant(path, place, node.lineno, slip, before, new, 0, start)
        try:
            ast.parse(mutant.applied(text))
        except SyntaxError:
            continue
        same = (place, slip, before, new)
        found.append(replace(mutant, number=seen[same]))
        seen[same] += 1
    return sorted(found, key=lambda mutant: mutant.start)


Slip = tuple[str, ast.expr | ast.stmt, ast.expr | str, str]
"""The place, the node that is replaced, what replaces it, and the kind of slip."""


class _Walk:
    """Walks over a tree and gives its slips."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree

    def __iter__(self) -> Iterator[Slip]:
        yield from self._in(self._tree, "")

    def _in(self, node: ast.AST, place: str) -> Iterator[Slip]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            place = f"{place}.{node.name}" if place else node.name
        for slip, replaced, after in _slips(node):
            yield place, replaced, after, slip
        for child in _children(node):
            yield from self._in(child, place)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Give the parts of a node in which slips are made."""
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    left_out: set[int] = set()
    for name in ("annotation", "returns", "decorator_list", "bases"):
        part = getattr(node, name, None)
        left_out |= {id(p) for p in (part if isinstance(part, list) else [part])}
    if isinstance(node, ast.AnnAssign) and "TypeAlias" in ast.unparse(node.annotation):
        left_out.add(id(node.value))
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        left_out.add(id(node.value))
    if isinstance(node, ast.Call) and _name(node) in _TYPES:
        return
    for child in ast.iter_child_nodes(node):
        idle = isinstance(child, ast.keyword) and child.arg in _IDLE_KEYWORDS
        if id(child) not in left_out and not idle:
            yield child


def _slips(node: ast.AST) -> Iterator[tuple[str, ast.expr | ast.stmt, ast.expr | str]]:
    maker = _MAKERS.get(type(node))
    if maker is not None:
        yield from maker(node)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.If | ast.For | ast.With):
        yield from _removals(node)


def _of_comparison(node: ast.Compare) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    for i, operator in enumerate(node.ops):
        for other in _COMPARISONS[type(operator)]:
            changed = copy.deepcopy(node)
            changed.ops[i] = other()
            yield "comparison", node, changed


def _of_arithmetic(node: ast.BinOp) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    texts = (ast.JoinedStr, ast.List, ast.Tuple)
    for side in (node.left, node.right):
        if isinstance(side, texts) or (isinstance(side, ast.Constant) and side.value is None):
            return
        if isinstance(side, ast.Constant) and isinstance(side.value, str):
            return
    other = _ARITHMETIC.get(type(node.op))
    if other is not None and not _is_union(node):
        changed = copy.deepcopy(node)
        changed.op = other()
        yield "arithmetic", node, changed


def _is_union(node: ast.BinOp) -> bool:
    """Whether it is a union of types, such as the second argument of `isinstance`."""
    names = [ast.unparse(side).rpartition(".")[2] for side in (node.left, node.right)]
    builtin = {"int", "float", "str", "list", "tuple", "dict", "bool", "type", "set", "frozenset"}
    is_type = [name[:1].isupper() or name in builtin or " | " in name for name in names]
    return isinstance(node.op, ast.BitOr) and all(is_type)


def _of_boolean(node: ast.BoolOp) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    changed = copy.deepcopy(node)
    changed.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    yield "and/or", node, changed
    for i in range(len(node.values)):
        fewer = copy.deepcopy(node)
        del fewer.values[i]
        yield "dropped condition", node, fewer if len(fewer.values) > 1 else fewer.values[0]


def _of_unary(node: ast.UnaryOp) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    yield {ast.Not: "not", ast.USub: "sign"}.get(type(node.op), "not"), node, node.operand


def _of_choice(node: ast.IfExp) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    yield "exchanged branches", node, ast.IfExp(node.test, node.orelse, node.body)


def _of_condition(node: ast.If | ast.While) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    named = isinstance(node.test, ast.Name | ast.Attribute | ast.Call)
    if named and ast.unparse(node.test) != "TYPE_CHECKING":
        yield "negated condition", node.test, ast.UnaryOp(ast.Not(), node.test)


def _of_constant(node: ast.Constant) -> Iterator[tuple[str, ast.expr, str]]:
    value = node.value
    if isinstance(value, bool):
        yield "constant", node, str(not value)
    elif isinstance(value, int | float):
        for other in (value + 1, value - 1):
            yield "constant", node, f"({other})" if other < 0 else f"{other}"


def _of_return(node: ast.Return) -> Iterator[tuple[str, ast.expr, str]]:
    value = node.value
    if value is not None and not (isinstance(value, ast.Constant) and not value.value):
        yield "returned None", value, "None"


def _of_call(node: ast.Call) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    name = _name(node)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in _IDLE_KEYWORDS:
            changed = copy.deepcopy(node)
            del changed.keywords[i]
            yield "dropped argument", node, changed
    if name in _SYMMETRIC or any(isinstance(a, ast.Starred | ast.GeneratorExp) for a in node.args):
        return
    for i in range(len(node.args) - 1):
        if ast.unparse(node.args[i]) != ast.unparse(node.args[i + 1]):
            changed = copy.deepcopy(node)
            changed.args[i : i + 2] = changed.args[i + 1], changed.args[i]
            yield "exchanged arguments", node, changed


def _of_subscript(node: ast.Subscript) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    for i, part in enumerate(parts):
        for bound in ("lower", "upper", "step"):
            if isinstance(part, ast.Slice) and getattr(part, bound) is not None:
                changed = copy.deepcopy(node)
                inner = changed.slice
                setattr(inner.elts[i] if isinstance(inner, ast.Tuple) else inner, bound, None)
                yield "slice", node, changed


def _of_jump(node: ast.Break | ast.Continue) -> Iterator[tuple[str, ast.stmt, str]]:
    yield "break/continue", node, "continue" if isinstance(node, ast.Break) else "break"


def _removals(node: ast.stmt) -> Iterator[tuple[str, ast.stmt, str]]:
    """Give the statements of a block without which it would still run."""
    for body in (getattr(node, "body", []), getattr(node, "orelse", [])):
        for statement in body:
            called = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
            raised = isinstance(statement, ast.Raise)
            changed = isinstance(statement, ast.AugAssign)
            targets = getattr(statement, "targets", [])
            stored = any(isinstance(t, ast.Attribute | ast.Subscript) for t in targets)
            if called or raised or changed or stored:
                yield "removed statement", statement, "pass"


def _name(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


_MAKERS: dict[type[ast.AST], Any] = {
    ast.Compare: _of_comparison,
    ast.BinOp: _of_arithmetic,
    ast.BoolOp: _of_boolean,
    ast.UnaryOp: _of_unary,
    ast.IfExp: _of_choice,
    ast.If: _of_condition,
    ast.While: _of_condition,
    ast.Constant: _of_constant,
    ast.Return: _of_return,
    ast.Call: _of_call,
    ast.Subscript: _of_subscript,
    ast.Break: _of_jump,
    ast.Continue: _of_jump,
}
