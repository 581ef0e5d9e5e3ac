"""Links from pages to files outside of the documentation, which lie in the repository."""

from __future__ import annotations

import re
from importlib.metadata import metadata
from typing import Any

BRANCH = "main"
_OUTSIDE = re.compile(r"\]\(\.\./([^)\s]+)\)")


_URLS = metadata("libragrad-lightning").get_all("Project-URL") or []
REPOSITORY = dict(url.split(", ", 1) for url in _URLS)["Repository"]


def point_to_repository(app: Any, page: str, source: list[str]) -> None:
    """Make ``](../path)`` a link to the repository, as the site holds nothing but this folder."""
    source[0] = _OUTSIDE.sub(rf"]({REPOSITORY}/blob/{BRANCH}/\1)", source[0])
