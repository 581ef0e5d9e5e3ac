"""Knows which tests run which lines, and how long they take."""

from __future__ import annotations

import ast
import hashlib
import json
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOMS = {
    "perturbation": ("perturbation",),
    "heatmaps": ("heatmaps",),
    "metrics": ("metrics",),
    "attribution": ("attribution",),
    "diagnosis": ("diagnosis",),
    "prompts": ("prompts",),
    "models": ("models", "perturbation"),
    "audit": ("audit", "monitoring", "callbacks"),
    "reporting": ("reporting", "callbacks"),
    "monitoring": ("monitoring", "callbacks"),
    "callbacks": ("callbacks",),
    "backward": ("backward",),
    "data": ("data",),
    "demo": ("demo",),
}
"""The folders of tests that belong to each room, that of its own name first."""

_COSTS = (0.3, 1.0, 3.0, 10.0)
"""Seconds from which tests are of another cost."""

_ELSEWHERE = ("run_in_processes", "subprocess.run(")
"""Who runs the package in other processes, where lines are not traced, says so."""


@dataclass
class TracedTest:
    """What a test does.

    Attributes:
        seconds: How long it takes.
        lines: The lines of the package that it runs, by file.
    """

    seconds: float
    lines: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class TracedFile:
    """What the tests of a file do.

    Attributes:
        digest: Of the file, when they ran.
        tests: The tests that passed, by their names.
        failed: The names of those that did not.
    """

    digest: str
    tests: dict[str, TracedTest] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


@dataclass
class TracedTests:
    """The tests that have been traced, kept in a file.

    Attributes:
        path: The file.
        files: What is known of each file of tests, by its path.
        sources: The digests of the files of the package at the time.
    """

    path: Path
    files: dict[str, TracedFile] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> TracedTests:
        """Read a map, or begin one."""
        if not path.exists():
            return cls(path)
        data = json.loads(path.read_text())
        files = {
            name: TracedFile(
                record["digest"],
                {test: TracedTest(**found) for test, found in record["tests"].items()},
                record["failed"],
            )
            for name, record in data["files"].items()
        }
        return cls(path, files, data["sources"])

    def write(self) -> None:
        """Keep the map."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = {
            "files": {name: asdict(record) for name, record in self.files.items()},
            "sources": self.sources,
        }
        self.path.write_text(json.dumps(data))

    def is_fresh(self, root: Path, file: str) -> bool:
        """Whether a file of tests is as it was when it was traced."""
        return file in self.files and self.files[file].digest == digest(root / file)

    def ordered(self, root: Path, files: Sequence[str], path: str, lines: range) -> list[str]:
        """Return the tests that run any of some lines, fast ones of the nearest name first.

        The others come by what they cost, those of like cost in turns by file, and by function in
        a file, as cases of one test notice alike.
        Where the source has changed since, or the lines run on import, all that run the file; all
        of the room where only importing runs it.

        Args:
            root: The root of the project.
            files: The files of tests that may be run.
            path: The source file.
            lines: Its lines.
        """
        moved = self.sources.get(path) != digest(root / path)
        known = {t: r for f in files if f in self.files for t, r in self.files[f].tests.items()}
        there = {t: r for t, r in known.items() if path in r.lines}
        hits = {t: r for t, r in there.items() if not moved and set(r.lines[path]) & set(lines)}
        chosen = hits or there or known
        places = _turns({test: chosen[test].seconds for test in chosen})
        stem = Path(path).stem
        near = {
            t: chosen[t].seconds <= 1 and stem in Path(t.partition("::")[0]).stem for t in chosen
        }
        cost = {t: bisect(_COSTS, chosen[t].seconds) for t in chosen}
        return sorted(chosen, key=lambda t: (not near[t], cost[t], places[t], chosen[t].seconds))

    def untraced(self, root: Path, files: Sequence[str]) -> list[str]:
        """Return the tests that run the package in other processes."""
        found = [f for f in files if any(sign in (root / f).read_text() for sign in _ELSEWHERE)]
        return [test for file in found if file in self.files for test in self.files[file].tests]

    def seconds(self, test: str) -> float:
        """Return how long a test took."""
        return self.files[test.partition("::")[0]].tests[test].seconds


def _turns(seconds: dict[str, float]) -> dict[str, int]:
    """Return in which turn of its file each test comes, fast ones first."""
    cases: Counter[str] = Counter()
    case = {}
    for test in sorted(seconds, key=lambda test: seconds[test]):
        function = test.partition("[")[0]
        case[test] = cases[function]
        cases[function] += 1
    turns: Counter[str] = Counter()
    found = {}
    for test in sorted(seconds, key=lambda test: (case[test], seconds[test])):
        file = test.partition("::")[0]
        found[test] = turns[file]
        turns[file] += 1
    return found


def sources_of(root: Path, room: str) -> list[str]:
    """Return the source files of a room."""
    folder = root / room if room == "callbacks" else root / "libragrad_lightning" / room
    return _relative(root, folder.rglob("*.py"))


def files_of_tests(root: Path, room: str) -> list[str]:
    """Return the files of tests of a room, and those of its own that hold doctests."""
    folders = [root / "tests" / name for name in ROOMS[room]]
    found = [file for folder in folders for file in sorted(folder.rglob("test_*.py"))]
    docs = [file for file in sources_of(root, room) if ">>> " in (root / file).read_text()]
    return [*_relative(root, found), *docs]


def _relative(root: Path, files: Iterable[Path]) -> list[str]:
    return sorted(str(file.relative_to(root)) for file in files)


def runs_when_called(text: str, line: int) -> bool:
    """Return whether a line of a source stands in the body of a function."""
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    return any(f.body[0].lineno <= line <= (f.end_lineno or 0) for f in functions)


def digest(file: Path) -> str:
    """Return a number that changes with a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
