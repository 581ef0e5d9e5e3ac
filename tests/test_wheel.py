"""What is installed: the rooms and the demo's images, small, and nothing that lies beside them."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from distributions import ROOT, built_wheel

ASSETS = "libragrad_lightning/demo/assets/"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built_wheel(tmp_path_factory.mktemp("wheel"))


def modules(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}


def test_it_holds_the_rooms_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {f"libragrad_lightning/{name}" for name in modules(ROOT / "libragrad_lightning")}
    expected |= {f"libragrad_lightning/callbacks/{name}" for name in modules(ROOT / "callbacks")}
    expected |= {f"{ASSETS}{path.name}" for path in (ROOT / ASSETS).iterdir()}
    typed = {"libragrad_lightning/py.typed", "libragrad_lightning/callbacks/py.typed"}
    assert names == expected | typed


def test_it_is_small(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.compress_size for entry in archive.infolist()}
    pictures = sum(size for name, size in sizes.items() if name.startswith(ASSETS))
    assert wheel.stat().st_size < 6_000_000
    assert wheel.stat().st_size - pictures < 1_000_000


def test_it_fetches_nothing_with_the_tools_of_others(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {name: archive.read(name) for name in archive.namelist() if name.endswith(".py")}
    for tool in (b"subprocess", b"urllib", b"apt-get", b"pip download", b"requests"):
        assert [name for name, text in texts.items() if tool in text] == []


WORKS = """
import libragrad_lightning
from libragrad_lightning.callbacks import LibraGradAudit
from libragrad_lightning.demo import GarmentsOnTextures
data = GarmentsOnTextures(num_train=10, num_val=10)
data.setup("fit")
batch = next(iter(data.val_dataloader()))
print(libragrad_lightning.__file__, LibraGradAudit.__module__, len(batch))
"""


def test_it_works_where_it_is_unpacked(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", WORKS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    place, module, entries = done.stdout.split()[-3:]
    assert Path(place).is_relative_to(tmp_path)
    assert (module, entries) == ("libragrad_lightning.callbacks.libragrad_audit", "3")
