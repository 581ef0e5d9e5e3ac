"""The commands of `examples/README.md` start in a process of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "examples" / "README.md").read_text()
COMMANDS = {
    "python -m cutout_scenes.photographs": ["-m", "cutout_scenes.photographs"],
    "python -m packaged_weights": ["-m", "packaged_weights"],
    "python benchmarks/paper_findings.py": ["benchmarks/paper_findings.py"],
    "python examples/build_demo_assets.py": ["examples/build_demo_assets.py"],
}


def test_every_command_is_known_here_or_is_a_configuration():
    listed = re.findall(r"^\| `(python [^` ]+(?: [a-z][\w.]+)?|libragrad)", README, re.MULTILINE)
    assert set(listed) - {"libragrad"} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_it_starts(command):
    done = subprocess.run(
        [sys.executable, *COMMANDS[command], "--help"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "examples", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
