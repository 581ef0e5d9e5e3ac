"""The site is built without a warning, and its links lead somewhere, soon."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class Page(HTMLParser):
    """The places of a page, and the links in its text, without those of the theme."""

    def __init__(self, path):
        super().__init__()
        self.places, self.links, self._inside = {""}, [], False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places |= {found[key] for key in ("id", "name") if found.get(key)}
        self._inside |= tag == "article"
        if self._inside and tag in ("a", "img"):
            self.links.append(found.get("href") or found.get("src") or "")

    def handle_endtag(self, tag):
        self._inside &= tag != "article"


def built(folder):
    """Build the site from a copy, as it writes pages beside those that are read."""
    shutil.copytree(DOCS, folder / "docs", ignore=shutil.ignore_patterns("_build", "api"))
    shutil.copytree(ROOT / "examples", folder / "examples")
    site = folder / "html"
    options = ["-W", "--keep-going", "-q", "-b", "html", "-D", "toc_object_entries=0"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(folder / "docs"), str(site)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return site


def target_of(link, page):
    """The file and the place that a link of a page leads to, or None if it leaves the site."""
    address, place = urldefrag(link)
    if re.match(r"\w+:", address):
        return None
    return (page.parent / unquote(address)).resolve() if address else page, unquote(place)


def leads_nowhere(pages):
    return [
        (page.name, link)
        for page, read in pages.items()
        for link in read.links
        if (target := target_of(link, page)) is not None
        and not (target[0].exists() and target[1] in getattr(pages.get(target[0]), "places", {""}))
    ]


def clicks(pages, start):
    """How many clicks in texts lead from the start to every page."""
    found, edge = {start: 0}, [start]
    for page in edge:
        for link in pages[page].links:
            target = target_of(link, page)
            if target is not None and target[0] in pages and target[0] not in found:
                found[target[0]] = found[page] + 1
                edge.append(target[0])
    return found


def test_the_site_is_built_and_every_page_is_two_clicks_away(tmp_path):
    pytest.importorskip("furo", reason="the site needs the extra `docs`")
    site = built(tmp_path).resolve()
    pages = {
        path: Page(path)
        for path in site.rglob("*.html")
        if path.name not in ("search.html", "genindex.html", "py-modindex.html")
    }
    assert {p.stem for p in DOCS.glob("*.md")} == {p.stem for p in pages if p.parent == site}
    assert leads_nowhere(pages) == []
    far = clicks(pages, site / "index.html")
    assert set(far) == set(pages)
    assert max(far.values()) <= 2
    assert far[site / "faq.html"] == 1
    index = re.search(r"Search\.setIndex\((.*)\)", (site / "searchindex.js").read_text())
    assert {"delet", "regist", "inference_mod"} <= set(json.loads(index[1])["terms"])


def test_links_to_files_of_the_repository_lead_to_some():
    links = [
        (page.name, link.partition("#")[0])
        for page in DOCS.glob("*.md")
        for link in re.findall(r"\]\((\.\./[^)\s]+)\)", page.read_text())
    ]
    assert links
    assert [(name, link) for name, link in links if not (DOCS / link).exists()] == []


def test_every_question_is_answered_or_leads_further():
    questions = re.split(r"^## ", (DOCS / "faq.md").read_text(), flags=re.MULTILINE)[1:]
    assert len(questions) >= 12
    without = [q.splitlines()[0] for q in questions if not re.search(r"\]\(\w+\.md", q)]
    assert without == []
    assert [q.splitlines()[0] for q in questions[:12] if "[thread](https://" not in q] == []


def test_every_package_with_public_names_is_in_the_reference():
    from _site import reference

    import libragrad_lightning

    listed = reference.packages(DOCS)
    folders = Path(libragrad_lightning.__file__).parent.glob("*/__init__.py")
    names = {f"libragrad_lightning.{path.parent.name}" for path in folders}
    not_public = {f"libragrad_lightning.{name}" for name in ("commands", "demo", "monitoring")}
    assert names - set(listed) == not_public
    assert reference.documented_elsewhere(listed)["libragrad_lightning.reporting"]["Pictures"] == (
        "libragrad_lightning.callbacks.Pictures"
    )
