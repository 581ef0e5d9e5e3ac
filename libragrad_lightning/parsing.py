"""What is said of a mistake of the user's on the command line: one sentence, and exit status 2."""

from __future__ import annotations

import difflib
import inspect
import linecache
import pydoc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn

from jsonargparse import ArgumentParser

from libragrad_lightning.backward import LibraGradError

IS_UNION = "Does not validate against any of the Union subtypes"
_KEY = re.compile(r"Parser key \"([^\"]+)\":")
_CLASS = re.compile(r"Problem with given class_path '([^']+)':")
_REFUSED = re.compile(rf"{_CLASS.pattern} Option '([^']+)' is not accepted")
_LONGEST_VALUE = 60
# What jsonargparse says of the other types that a value could have had.
_ASIDES = (
    "Expected a <class 'NoneType'>",
    "Not a valid subclass of",
    "Problem with given class_path 'lightning.Callback'",
)


class SentenceParser(ArgumentParser):
    """A parser that says what is wrong in one sentence, instead of after a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message, without what jsonargparse adds to it, and exit with status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        self.exit(2, f"error: {parser_sentence(message)}\n")


@contextmanager
def one_sentence(*kinds: type[Exception]) -> Iterator[None]:
    """End the program with one sentence and exit status 2 after a mistake of the user's.

    Any other error keeps its traceback.

    Args:
        kinds: Other kinds of exceptions that are a mistake of the user's.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, kinds) and not is_users_mistake(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def is_users_mistake(error: BaseException) -> bool:
    """Tell a mistake of the user's from a fault of the program.

    Args:
        error: As it was raised.

    Returns:
        Whether it is an error of this package, or a `ValueError` that it raises itself, which is
        always one sentence on what to change.
    """
    if isinstance(error, LibraGradError):
        return True
    place = _innermost(error.__traceback__)
    if not isinstance(error, ValueError) or place is None:
        return False
    module = str(place.tb_frame.f_globals.get("__name__"))
    line = linecache.getline(place.tb_frame.f_code.co_filename, place.tb_lineno)
    return module.split(".")[0] == "libragrad_lightning" and line.lstrip().startswith("raise ")


def parser_sentence(message: str) -> str:
    """Shorten a message of jsonargparse to what the user has to know.

    Args:
        message: With the types and the values that it lists after its first line.

    Returns:
        One line, without types that the value was not meant to have.
    """
    said = _told(message.splitlines())
    said = _REFUSED.sub(lambda found: _refusal(found[1], found[2]), said)
    return _CLASS.sub(r"\1:", _KEY.sub(r"\1:", said))


def _innermost(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback


def _told(lines: list[str]) -> str:
    """Join the lines, but of alternatives keep only those that the user may have meant."""
    stripped = [line.strip() for line in lines]
    start = stripped.index("Errors:") if "Errors:" in stripped else len(lines)
    items, rest = _items(lines[start + 1 :])
    if not items:
        return " ".join(filter(None, stripped))
    told = list(dict.fromkeys(map(_told, items)))
    meant = [item for item in told if not item.startswith(_ASIDES)] or told
    head = [line for line in stripped[:start] if not line.startswith((IS_UNION, "Subtypes:"))]
    # Of a class, the value is all of its arguments, and its message has named the wrong one.
    values = () if any(map(_CLASS.search, meant)) else rest
    given = [line.strip() for line in values if line.strip().startswith("Given value:")]
    seen = [f"({line})" for line in given if len(line) <= _LONGEST_VALUE]
    return " ".join([*head, ", or ".join(meant), *seen])


def _items(lines: list[str]) -> tuple[list[list[str]], list[str]]:
    """Split a list with hyphens, which is indented, into its items and what comes after it."""
    items: list[list[str]] = []
    indent = _depth(lines[0]) if lines else 0
    for i, line in enumerate(lines):
        starts = _depth(line) == indent and line.lstrip().startswith("- ")
        if not starts and (_depth(line) < indent or not items):
            return items, lines[i:]
        if starts:
            items.append([line.lstrip()[2:]])
        else:
            items[-1].append(line)
    return items, []


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _refusal(class_path: str, option: str) -> str:
    name = class_path.rpartition(".")[2]
    cls = pydoc.locate(class_path)
    known = list(inspect.signature(cls).parameters) if isinstance(cls, type) else []
    close = difflib.get_close_matches(option, known, n=1)
    if close:
        return f"{name} has no argument {option!r}; change it to {close[0]!r}."
    return f"{name} has no argument {option!r}; its arguments are {', '.join(known)}."
