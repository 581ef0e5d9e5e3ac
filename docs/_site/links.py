"""Links from pages to files outside of the documentation, which lie in the repository."""

from __future__ import annotations

import re
from importlib.metadata import metadata
from typing import Any

BRANCH = "main"
_WITHOUT_METADATA = "https://github.com/libragrad-lightning/libragrad-lightning"
"""Where the repository is, as long as the package's metadata does not say so."""
_OUTSIDE = re.compile(r"\]\(\.\./([^)\s]+)\)")


def _repository() -> str:
    urls = metadata("libragrad-lightning").get_all("Project-URL") or []
    named = dict(url.split(", ", 1) for url in urls)
    found = named.get("Repository") or named.get("Source") or _WITHOUT_METADATA
    return found.rstrip("/")


REPOSITORY = _repository()


def point_to_repository(app: Any, page: str, source: list[str]) -> None:
    """Make ``](../path)`` a link to the repository, as the site holds nothing but this folder."""
    source[0] = _OUTSIDE.sub(rf"]({REPOSITORY}/blob/{BRANCH}/\1)", source[0])
