"""Tests releases of the packages below this one, and prints their row for docs/versions.md.

A fresh environment gets what is named, and the newest of everything else that fits:

    python benchmarks/release.py torch==2.9.1
    python benchmarks/release.py torch==2.7.1 timm==1.0.20 --python python3.12 --rooms tests/models
    python benchmarks/release.py --oldest --python python3.10

The last takes the lower bounds of pyproject.toml.

`libragrad doctor` and the named tests run there, and the environment is removed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "torchvision", "timm", "lightning")
ROOMS = ("tests/backward", "tests/attribution", "tests/models")
_VERSIONS = """
import platform, sys
from importlib.metadata import version
print(*map(version, sys.argv[1:]), platform.python_version())
"""


def oldest() -> list[str]:
    """Return requirements of the oldest releases that the package admits."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    bounds = dict(re.findall(r'"([\w-]+)>=([\d.]+)"', text))
    return [f"{name}=={bounds[name]}.*" for name in PACKAGES]


@dataclass(frozen=True)
class Counts:
    """What became of the tests of a room.

    Attributes:
        passed: How many passed.
        failed: How many failed, or could not be set up.
    """

    passed: int
    failed: int

    @classmethod
    def read(cls, report: Path) -> Counts:
        """Count in a report that pytest wrote; without one, collecting the tests failed."""
        if not report.exists():
            return cls(0, 1)
        suite = ElementTree.parse(report).getroot().find("testsuite")
        tests, failures, errors, skipped = (
            int(suite.attrib[name]) if suite is not None else 0
            for name in ("tests", "failures", "errors", "skipped")
        )
        return cls(tests - failures - errors - skipped, failures + errors)

    def __str__(self) -> str:
        return f"{self.passed} pass, {self.failed} fail" if self.failed else f"{self.passed} pass"


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        folder: Where it is.
    """

    folder: Path

    def create(self, interpreter: str, requirements: list[str]) -> None:
        """Install this package, editable, with its tests' packages and with what is required."""
        subprocess.run([interpreter, "-m", "venv", self.folder], check=True)
        package = f"{ROOT}[test]"
        self.python(
            "-m", "pip", "install", "--quiet", "-e", package, *requirements
        ).check_returncode()

    def python(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run the interpreter, in the repository."""
        command = [str(self.folder / "bin" / "python"), *arguments]
        environment = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"} | os.environ
        return subprocess.run(command, cwd=ROOT, env=environment, text=True, **options)  # type: ignore[call-overload]

    def versions(self) -> list[str]:
        """Return the versions of the packages, and that of Python."""
        told = self.python("-c", _VERSIONS, *PACKAGES, capture_output=True)
        told.check_returncode()
        return told.stdout.split()

    def doctor(self) -> str:
        """Return what `libragrad doctor` says of this installation."""
        failed = self.python("-m", "libragrad_lightning", "doctor").returncode
        return "finds errors" if failed else "passes"

    def test(self, room: str, workers: int) -> Counts:
        """Run the tests of a room."""
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        options = ("-p", "no:cacheprovider", "-n", str(workers), f"--junitxml={report}")
        self.python("-m", "pytest", *options, room)
        return Counts.read(report)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("requirements", nargs="*", help="such as torch==2.9.1")
    parser.add_argument("--oldest", action="store_true", help="the oldest releases of all")
    parser.add_argument("--python", default=sys.executable, help="the interpreter")
    parser.add_argument("--rooms", nargs="+", default=ROOMS, help="folders or files of tests")
    parser.add_argument("--workers", type=int, default=2, help="processes of the tests")
    arguments = parser.parse_args()
    requirements = [*(oldest() if arguments.oldest else ()), *arguments.requirements]
    with tempfile.TemporaryDirectory() as folder:
        environment = Environment(Path(folder))
        environment.create(arguments.python, requirements)
        row = [*environment.versions(), environment.doctor()]
        rooms = {room: environment.test(room, arguments.workers) for room in arguments.rooms}
    row += [f"`{room}`: {counts}" for room, counts in rooms.items()]
    print(f"| {' | '.join(row)} |")
    sys.exit(any(counts.failed for counts in rooms.values()))


if __name__ == "__main__":
    main()
