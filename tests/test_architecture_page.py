"""The page on architecture names every room, and every file that it names is there."""

import re
from pathlib import Path

import libragrad_lightning

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_room_is_on_the_page():
    package = Path(libragrad_lightning.__file__).parent
    rooms = {path.name for path in package.iterdir() if any(path.glob("*.py"))} | {"callbacks"}
    files = {path.name for path in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    listed = re.findall(r"^\| `(\w+)` \|", PAGE, re.M)
    assert sorted(listed) == sorted(rooms)
    assert {name for name in files if f"`{name}`" not in PAGE} == set()


def test_every_file_that_is_named_is_there():
    package = Path(libragrad_lightning.__file__).parent
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", PAGE))
    assert named
    assert {n for n in named if not ((package / n).exists() or (ROOT / n).exists())} == set()
