"""What `pyproject.toml` cannot say: the README as a package index can show it.

There, pictures and links that are relative to the repository lead nowhere. They are made those of
the release's tag; everything else about the package is in `pyproject.toml`.
"""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
PICTURES = (".png", ".jpg")
RELATIVE_LINK = re.compile(r"\]\((?!\w+:)([^)]+)\)")


def only_match(pattern: str, path: str) -> str:
    """Return what a pattern finds in a file of the project, where it is found once."""
    (found,) = re.findall(pattern, (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    return str(found)


def absolute_link(target: str) -> str:
    """Return the address of what a link in the README leads to."""
    repository = only_match(r'^Repository = "(.+)"$', "pyproject.toml")
    version = only_match(r'^__version__ = "(.+)"$', "libragrad_lightning/__init__.py")
    form = "raw" if target.endswith(PICTURES) else "blob"
    return f"{repository}/{form}/v{version}/{'README.md' * target.startswith('#')}{target}"


def index_page() -> str:
    """Return the README with absolute links."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return RELATIVE_LINK.sub(lambda link: f"]({absolute_link(link[1])})", readme)


setup(long_description=index_page(), long_description_content_type="text/markdown")
