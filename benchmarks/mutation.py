"""Makes small slips in the package and looks whether the tests notice.

    python benchmarks/mutation.py run metrics --count 60     # also all rooms: run all
    python benchmarks/mutation.py run metrics --again        # tries survivors anew
    python benchmarks/mutation.py table                      # benchmarks/slips -> docs/mutation.md

Slips are made one at a time in a copy, and the tests of the room that run the changed lines, fast
ones first, are run until one fails. What each of them comes to is written at once, so that a run
that was stopped goes on. The slips of a room are drawn in an order that depends on the seed alone,
one of every kind in turn.

Which tests run which lines is traced once for each file of tests, and again when it changes.
`--tests tests/audit` does with a part of them, where the others take long: what survives is then to
be tried again with all.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mutants import Mutant, mutants
from mutation_map import (
    ROOMS,
    TracedFile,
    TracedTest,
    TracedTests,
    digest,
    files_of_tests,
    runs_when_called,
    sources_of,
)
from mutation_table import equivalent, write_table
from mutation_trials import Laboratory, Trial

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "slips"
TESTS = ROOT / "build" / "mutation" / "tests.json"
_SHORT = 120
"""How many characters of a slip are shown."""


@dataclass(frozen=True)
class Outcome:
    """What a slip came to.

    Attributes:
        key: The slip.
        room: Its room.
        path: Its file.
        line: Its line.
        place: Its function.
        slip: What kind it is.
        said: What it changes.
        outcome: ``killed`` or ``survived``.
        by: The test that noticed.
        reason: How: ``failed``, ``hung`` or ``crashed``.
        tests: How many tests ran.
        seconds: How long they took.
    """

    key: str
    room: str
    path: str
    line: int
    place: str
    slip: str
    said: str
    outcome: str
    by: str
    reason: str
    tests: int
    seconds: float


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.command == "table":
        write_table(RESULTS, arguments.out, ROOT)
        return
    # So that the copy and the tests that run in it go when this process is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rooms = list(ROOMS) if arguments.room == "all" else [arguments.room]
    laboratory = Laboratory(ROOT)
    try:
        for room in rooms:
            _run(room, laboratory, arguments)
    finally:
        laboratory.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="try slips of a room that have not been tried")
    run.add_argument("room", choices=["all", *ROOMS])
    run.add_argument(
        "--count", type=int, default=60, help="how many slips, with those tried before"
    )
    run.add_argument("--seed", type=int, default=0, help="decides which slips are drawn")
    run.add_argument("--again", action="store_true", help="try survivors anew, and no others")
    run.add_argument(
        "--tests", nargs="+", default=[""], help="only tests in files or folders of these names"
    )
    run.add_argument("--seconds", type=float, default=60.0, help="for the tests of one slip")
    table = commands.add_parser("table", help="write the page")
    table.add_argument("--out", type=Path, default=ROOT / "docs" / "mutation.md")
    return parser


def drawn(room: str, seed: int, root: Path = ROOT) -> list[Mutant]:
    """Return the mutants of a room in the order in which they are tried: one of every kind in turn.

    Args:
        room: The room.
        seed: Decides the order.
        root: The root of the project.
    """
    by_kind = defaultdict(list)
    for path in sources_of(root, room):
        for mutant in mutants(path, (root / path).read_text()):
            by_kind[mutant.slip].append(mutant)
    order = random.Random(f"{seed} {room}")
    queues = [by_kind[kind] for kind in sorted(by_kind)]
    for queue in queues:
        order.shuffle(queue)
    longest = max(map(len, queues), default=0)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]


def said(mutant: Mutant) -> str:
    """Return what a slip changes, on one line."""
    before, after = (" ".join(text.split()) for text in (mutant.before, mutant.after))
    if len(before) + len(after) <= _SHORT or after == "pass":
        return f"{before} -> {after}"
    first, second = (ast.unparse(ast.parse(f"({text})")) for text in (mutant.before, mutant.after))
    start = _shared(first, second)
    end = _shared(first[start:][::-1], second[start:][::-1])
    parts = [text[max(0, start - 20) : len(text) - max(0, end - 20)] for text in (first, second)]
    return " -> ".join("..." + " ".join(part.split())[:_SHORT] + "..." for part in parts)


def _shared(first: str, second: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def read(file: Path) -> dict[str, Outcome]:
    """Return the last outcome of every slip in a file, by key."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {outcome.key: outcome for outcome in (Outcome(**json.loads(line)) for line in lines)}


def _run(room: str, laboratory: Laboratory, arguments: argparse.Namespace) -> None:
    file = RESULTS / f"{room}.jsonl"
    known, wanted = read(file), drawn(room, arguments.seed, laboratory.tree)
    if arguments.again:
        survived = {key for key, found in known.items() if found.outcome == "survived"}
        survived -= equivalent(ROOT).keys()
        left = [mutant for mutant in wanted if mutant.key in survived]
    else:
        left = [mutant for mutant in wanted[: arguments.count] if mutant.key not in known]
    test_map = TracedTests.read(TESTS)
    if left:
        files = files_of_tests(laboratory.tree, room)
        files = [file for file in files if file.startswith(tuple(arguments.tests))]
        trace(files, laboratory, test_map)
    for number, mutant in enumerate(left, 1):
        outcome = _tried(room, mutant, files, laboratory, test_map, arguments.seconds)
        with file.open("a") as out:
            out.write(json.dumps(asdict(outcome)) + "\n")
        print(
            f"{room} {number}/{len(left)} {outcome.outcome} {outcome.seconds:.0f} s "
            f"{mutant.path}:{mutant.line} {mutant.slip}: {outcome.said}  [{outcome.by}]",
            flush=True,
        )


def trace(files: Sequence[str], laboratory: Laboratory, test_map: TracedTests) -> None:
    """Trace those files of tests that have changed."""
    root = laboratory.tree
    for path in {p for name in ROOMS for p in sources_of(root, name)}:
        test_map.sources.setdefault(path, digest(root / path))
    for file in files:
        if test_map.is_fresh(root, file):
            continue
        start, record = time.monotonic(), TracedFile(digest(root / file))
        for line in laboratory.traced(file, seconds=1500):
            if line["outcome"] == "passed":
                record.tests[line["test"]] = TracedTest(line["seconds"], line["lines"])
            elif line["outcome"] != "skipped":
                record.failed.append(line["test"])
        test_map.files[file] = record
        test_map.write()
        print(
            f"traced {file}: {len(record.tests)} tests in {time.monotonic() - start:.0f} s, "
            f"left out {record.failed}",
            flush=True,
        )


def _tried(
    room: str,
    mutant: Mutant,
    files: Sequence[str],
    laboratory: Laboratory,
    test_map: TracedTests,
    seconds: float,
) -> Outcome:
    start, root = time.monotonic(), laboratory.tree
    text = (root / mutant.path).read_text()
    # What runs on import is noticed by tests that did not import it.
    count = mutant.before.count("\n") + 1 if runs_when_called(text, mutant.line) else 0
    lines = range(mutant.line, mutant.line + count)
    tests = test_map.ordered(root, files, mutant.path, lines)
    tests += [test for test in test_map.untraced(root, files) if test not in tests]
    trial = Trial({}, None, "")
    if tests:
        expected = {test: test_map.seconds(test) for test in tests}
        with laboratory.changed(mutant.path, mutant.applied(text)):
            trial = laboratory.run(tests, expected, seconds)
    return Outcome(
        mutant.key,
        room,
        mutant.path,
        mutant.line,
        mutant.place,
        mutant.slip,
        said(mutant),
        "survived" if trial.failed is None else "killed",
        trial.failed or "",
        trial.reason,
        len(trial.passed) + (trial.failed is not None),
        round(time.monotonic() - start, 1),
    )


if __name__ == "__main__":
    main()
