"""What a release is made of says the same everywhere, and works where it is shown."""

import re
import subprocess
import sys
import tarfile
import zipfile
from datetime import date
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from distributions import ROOT, built_wheel

import libragrad_lightning

TEXTS = [
    path
    for pattern in ("*.md", "*.cff", "*.toml", ".github/**/*.yml", ".github/*.md", "docs/*.md")
    for path in ROOT.glob(pattern)
]


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    """What a package index is told: fields, and the page as the text."""
    with zipfile.ZipFile(built_wheel(tmp_path_factory.mktemp("release"))) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def project_url(metadata, label):
    urls = dict(entry.split(", ") for entry in metadata.get_all("Project-URL"))
    return urls[label]


def test_version_and_date_are_those_of_the_latest_entry_of_the_changelog(metadata, citation):
    text = (ROOT / "CHANGELOG.md").read_text()
    version, day = re.findall(r"^## \[(\d\S*)\] - (\S+)$", text, re.MULTILINE)[0]
    assert version == libragrad_lightning.__version__ == metadata["Version"] == citation["version"]
    assert date.fromisoformat(day) == date.fromisoformat(citation["date-released"])
    assert re.search(rf"^\[{re.escape(version)}\]: https://", text, re.MULTILINE)


def test_links_on_the_package_index_lead_to_files_of_the_release(metadata):
    links = re.findall(r"\]\(([^)]+)\)", metadata.get_payload())
    assert len(links) > 20
    base = f"{project_url(metadata, 'Repository')}/"
    files = tuple(f"{base}{form}/" for form in ("blob", "raw"))
    ours = [link.removeprefix(base) for link in links if link.startswith(files)]
    assert {link for link in links if not link.startswith("https://")} == set()
    assert len(ours) == len(re.findall(r"\]\((?!https:)", (ROOT / "README.md").read_text()))
    for link in ours:
        form, tag, path = link.partition("#")[0].split("/", 2)
        assert tag == f"v{metadata['Version']}"
        assert (ROOT / path).is_file()
        assert (form == "raw") == (Path(path).suffix in {".png", ".jpg"})


def test_every_address_of_the_repository_is_the_same(metadata, citation):
    owner = project_url(metadata, "Repository").rpartition("/")[0]
    assert citation["repository-code"] == project_url(metadata, "Repository")
    named = re.compile(r"https://github\.com/libragrad-lightning[^\s)\"]*")
    addresses = [found for path in TEXTS for found in named.findall(path.read_text())]
    assert len(addresses) > 6
    assert {"/".join(a.split("/")[:5]) for a in addresses} == {f"{owner}/libragrad-lightning"}


def test_an_sdist_holds_what_is_under_version_control(tmp_path):
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    tracked = set(filter(None, listed.stdout.split("\0"))) or pytest.skip("no git repository")
    done = subprocess.run(
        [sys.executable, "-c", SDIST, tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    with tarfile.open(tmp_path / done.stdout.split()[-1]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked - held == {".gitignore"}
    assert not any(re.search(r"\.py[co]$|_cache|^data/|^build/|_build", name) for name in held)


SDIST = """
import sys
from setuptools.build_meta import build_sdist
print(build_sdist(sys.argv[1]))
"""


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/**/*.yml")), ids=lambda path: path.name)
def test_workflows_and_forms_are_what_they_should_be(path):
    content = yaml.safe_load(path.read_text())
    if path.parent.name == "workflows":
        assert content["jobs"]
        assert content["permissions"] == {"contents": "read"}
    elif path.stem != "config":
        fields = [field["id"] for field in content["body"]]
        assert len(fields) == len(set(fields)) > 0


def test_workflows_run_the_releases_that_the_page_lists():
    page = (ROOT / "docs" / "versions.md").read_text()
    rows = set(re.findall(r"^\| (2\.\d+\.\d+) \| (3\.\d+) \|", page, re.MULTILINE))
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    runs = jobs["releases"]["strategy"]["matrix"]["include"]
    oldest = min(rows, key=lambda row: [int(part) for part in row[0].split(".")])
    assert {
        (
            oldest[0] if r["requirements"] == "--oldest" else r["requirements"].partition("==")[2],
            r["python"],
        )
        for r in runs
    } == rows
