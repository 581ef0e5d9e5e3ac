"""Runs tests in a copy of the project, in forks of a process that has loaded all libraries.

Loading PyTorch and its like takes longer than most tests, so it is done once. Each fork imports the
package anew, with the slip in it, runs the tests that it is given one after the other, and tells
after each of them how it went.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS = "libragrad_lightning"
_PRELOADED = (
    "pytest hypothesis numpy torch torchvision timm lightning.pytorch torchmetrics captum.attr "
    "transformers open_clip scipy.stats scipy.ndimage sklearn.metrics PIL.Image rich.console "
    "matplotlib.pyplot pycocotools.mask coverage tensorboard.backend.event_processing"
    ".event_accumulator torch.utils.tensorboard torch.distributed.fsdp jsonargparse peft"
).split()
_LEFT_OUT = shutil.ignore_patterns(".git", "__pycache__", "*.egg-info", ".hypothesis", "build")
_SLOW, _SECONDS_MORE = 10, 30
"""A test that takes so many times its time, and so much more, is taken to hang."""


@dataclass(frozen=True)
class Trial:
    """How tests went.

    Attributes:
        passed: The seconds of those that passed, by their names, in their order.
        failed: The first that did not; the file if it could not be imported; None if all passed.
        reason: ``failed``, ``hung``, ``crashed``, or empty.
    """

    passed: dict[str, float]
    failed: str | None
    reason: str


class Laboratory:
    """A copy of the project in which files may be changed, and a process with the libraries.

    Args:
        root: The root of the project.
    """

    def __init__(self, root: Path) -> None:
        self.tree = Path(tempfile.mkdtemp(prefix="mutation_")) / "tree"
        shutil.copytree(root, self.tree, ignore=_LEFT_OUT, symlinks=True)
        os.environ |= {"PYTHONPATH": str(self.tree), "OMP_NUM_THREADS": "1"}
        sys.path.insert(0, str(self.tree))
        os.chdir(self.tree)
        # The package comes first: it repairs torchvision before anything imports it.
        for name in (OURS, f"{OURS}.callbacks", f"{OURS}.cli", *_PRELOADED):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        for name in [name for name in sys.modules if name.partition(".")[0] == OURS]:
            del sys.modules[name]
        gc.freeze()  # so that forks share its memory

    def close(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self.tree.parent)

    @contextlib.contextmanager
    def changed(self, path: str, text: str) -> Iterator[None]:
        """Change a file of the copy inside of the context."""
        file = self.tree / path
        before = file.read_text()
        try:
            self._write(file, text)
            yield
        finally:
            self._write(file, before)

    def run(self, tests: Sequence[str], expected: dict[str, float], seconds: float) -> Trial:
        """Run tests until one fails.

        Args:
            tests: Their names, in this order.
            expected: How long they take.
            seconds: When to stop.
        """
        limits = {test: _SLOW * taken + _SECONDS_MORE for test, taken in expected.items()}
        lines, status = self._forked(lambda told: _tested(tests, told, limits), seconds)
        passed = {line["test"]: line["seconds"] for line in lines if line["outcome"] == "passed"}
        bad = next((line for line in lines if line["outcome"] in ("failed", "hung")), None)
        if bad is not None:
            return Trial(passed, bad["test"], bad["outcome"])
        if status == "late":
            heard = {line["test"] for line in lines}
            running = next((test for test in tests if test not in heard), None)
            taken = seconds - sum(line["seconds"] for line in lines)
            # Compiled code does not let the alarm of the test through.
            hangs = running is not None and taken > limits[running]
            return Trial(passed, running, "hung") if hangs else Trial(passed, None, "")
        if status != "0":
            return Trial(passed, lines[-1]["test"] if lines else "import", "crashed")
        return Trial(passed, None, "")

    def traced(self, file: str, seconds: float) -> list[dict[str, Any]]:
        """Run the tests of a file; return how each went, and which lines it ran."""
        return self._forked(lambda told: _traced(file, told, self.tree), seconds)[0]

    def _forked(self, work: Any, seconds: float) -> tuple[list[dict[str, Any]], str]:
        told = self.tree.parent / "told.jsonl"
        told.write_text("")
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            quiet = os.open(self.tree.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            code = 70
            try:
                code = work(told)
            finally:
                sys.stdout.flush()
                os._exit(code)
        try:
            status = _awaited(child, seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):  # what the tests have left running
                os.killpg(child, signal.SIGKILL)
        return [json.loads(line) for line in told.read_text().splitlines()], status

    @staticmethod
    def _write(file: Path, text: str) -> None:
        # A compiled file of the same second and size would be taken for that of the new text.
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
            compiled.unlink()
        file.write_text(text)


def _awaited(child: int, seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return str(os.waitstatus_to_exitcode(status))
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "late"


def _tested(tests: Sequence[str], told: Path, limits: dict[str, float]) -> int:
    return _pytest(["-x", *tests], _Teller(told, limits))


def _traced(file: str, told: Path, tree: Path) -> int:
    import coverage

    lines = coverage.Coverage(
        data_file=None, source=[str(tree / OURS), str(tree / "callbacks")], config_file=False
    )
    lines.start()
    status = _pytest([file], _Teller(told, {}, lines, tree))
    lines.stop()
    return status


def _pytest(arguments: Sequence[str], teller: _Teller) -> int:
    import hypothesis
    import pytest

    hypothesis.settings.register_profile(
        "mutation",
        database=None,
        derandomize=True,
        deadline=None,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    )
    hypothesis.settings.load_profile("mutation")
    options = ["-n", "0", "-p", "no:cacheprovider", "--tb=no", "--no-header", "-W", "ignore"]
    return int(pytest.main([*options, *arguments], plugins=[teller]))


class _Teller:
    """A plugin of pytest that writes down how each test went."""

    def __init__(
        self, told: Path, limits: dict[str, float], lines: Any = None, tree: Path | None = None
    ) -> None:
        self._told, self._limits, self._lines, self._tree = told, limits, lines, tree
        self._test, self._start, self._failed = "", 0.0, False
        signal.signal(signal.SIGALRM, self._hung)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._test, self._start, self._failed = nodeid, time.monotonic(), False
        signal.setitimer(signal.ITIMER_REAL, self._limits.get(nodeid, 0.0))
        if self._lines is not None:
            self._lines.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._failed |= report.failed
        if report.when == "teardown":
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            skipped = getattr(report, "skipped", False)
            self._tell("failed" if self._failed else "skipped" if skipped else "passed")

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._test, self._start = report.nodeid, time.monotonic()
            self._tell("failed")

    def _hung(self, *_: Any) -> None:
        self._tell("hung")
        os._exit(71)

    def _tell(self, outcome: str) -> None:
        found: dict[str, Any] = {"test": self._test, "outcome": outcome}
        found["seconds"] = round(time.monotonic() - self._start, 3)
        if self._lines is not None:
            found["lines"] = self._seen()
        with self._told.open("a") as file:
            file.write(json.dumps(found) + "\n")

    def _seen(self) -> dict[str, list[int]]:
        assert self._tree is not None
        data = self._lines.get_data()
        data.set_query_context(self._test)
        found = {}
        for file in data.measured_files():
            if lines := data.lines(file):
                found[os.path.relpath(os.path.realpath(file), self._tree)] = sorted(lines)
        return found
