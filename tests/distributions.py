"""The package as others get it: a copy of its source, wheels, and environments to install it in."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("libragrad_lightning", "callbacks")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
OFFLINE = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")


def copied_source(folder):
    """What a wheel is made of, copied: setuptools would take what an earlier build left behind."""
    source = folder / "source"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    for name in FILES:
        shutil.copyfile(ROOT / name, source / name)
    return source


def built_wheel(folder):
    """The wheel, built in a folder."""
    source = copied_source(folder)
    pip = (sys.executable, "-m", "pip")
    subprocess.run([*pip, "wheel", *OFFLINE, "--wheel-dir", folder, source], check=True)
    (built,) = folder.glob("*.whl")
    return built


def environment_with(folder, *requirement):
    """The interpreter of an environment with the libraries of this one, and one package more."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A path in a path file is no site folder: the editable install of here is not found there.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    subprocess.run([*pip, "install", *OFFLINE, *requirement], check=True)
    return python
