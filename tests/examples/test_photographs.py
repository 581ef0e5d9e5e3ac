"""Fetching Debian's photographs: the curated list, the copying, and the refusals."""

import shutil
import subprocess
from collections import Counter

import pytest
from PIL import Image

from cutout_scenes import photographs
from cutout_scenes.photographs import FetchError, curated_photographs, fetch_photographs
from libragrad_lightning.data import CutoutDataModule


def fake_debian(monkeypatch, missing=""):
    """Replace the two tools: `apt-get download` and `dpkg-deb -x` of packages without content."""
    pictures = curated_photographs()
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")

    def run(command, cwd, **_):
        if command[0] == "apt-get":
            for package in command[-3:]:
                (cwd / f"{package}_1_all.deb").touch()
        else:
            assert (cwd / command[2]).is_file()
            assert cwd / command[3] == cwd / "tree"
            package = command[2].rpartition("/")[2].partition("_")[0]
            tree = cwd / "tree"
            names = {p.path for p in pictures if p.package == package and p.path != missing}
            for name in names | {f"usr/share/doc/{package}/copyright"}:
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                (tree / name).write_text(name)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return pictures


def test_the_curated_list_has_five_classes_and_backgrounds():
    pictures = curated_photographs()
    counts = Counter(picture.label for picture in pictures)
    assert set(counts) == {"", "bird", "flower", "fruit", "mammal", "vehicle"}
    assert min(counts.values()) >= 14
    assert len({picture.target for picture in pictures}) == len(pictures)
    assert {picture.package for picture in pictures if picture.label} == {"tuxpaint-stamps-default"}


def test_every_picture_lands_in_the_folder_of_its_class(monkeypatch, tmp_path, capsys):
    pictures = fake_debian(monkeypatch)
    photographs.main([str(tmp_path / "made")])
    assert f"{len(pictures)} pictures" in capsys.readouterr().out
    for picture in pictures:
        folder = f"objects/{picture.label}" if picture.label else "backgrounds"
        copied = tmp_path / "made" / folder / picture.path.rpartition("/")[2]
        assert copied.read_text() == picture.path
    assert len(list((tmp_path / "made" / "copyright").iterdir())) == 3
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        "objects",
        "backgrounds",
        "copyright",
    }


def test_the_folder_may_be_named_from_here(monkeypatch, tmp_path):
    fake_debian(monkeypatch)
    monkeypatch.chdir(tmp_path)
    photographs.main(["data/photographs"])
    assert (tmp_path / "data" / "photographs" / "backgrounds").is_dir()


@pytest.mark.parametrize("absent", ["apt-get", "dpkg-deb"])
def test_elsewhere_one_sentence_says_what_to_do(monkeypatch, tmp_path, absent):
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == absent else tool)
    with pytest.raises(SystemExit) as refusal:
        photographs.main([str(tmp_path / "made")])
    assert f"this machine has no {absent};" in refusal.value.code
    assert "folders of your own" in refusal.value.code
    assert not (tmp_path / "made").exists()


def test_a_failing_download_repeats_what_was_said(monkeypatch, tmp_path):
    fake_debian(monkeypatch)
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(command, 100, "", "E: No such\npackage"),
    )
    with pytest.raises(FetchError, match=r"\(E: No such package\); run `apt-get update`"):
        fetch_photographs(tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_release_is_named(monkeypatch, tmp_path):
    missing = curated_photographs()[5].path
    fake_debian(monkeypatch, missing)
    with pytest.raises(FetchError, match=f"tuxpaint-stamps-default has no {missing}"):
        fetch_photographs(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None,
    reason="the photographs come from Debian's packages, and this is no Debian-based machine",
)
def test_the_real_packages_make_a_data_module(tmp_path):
    count = fetch_photographs(tmp_path)
    assert count == len(curated_photographs())
    data = CutoutDataModule(str(tmp_path / "objects"), str(tmp_path / "backgrounds"), num_val=64)
    data.setup("fit")
    assert data.class_names == ("bird", "flower", "fruit", "mammal", "vehicle")
    masks = [sample["mask"].float().mean() for sample in data.build("val")]
    assert 0.05 < sum(masks) / 64 < 0.3
    for path in (tmp_path / "backgrounds").iterdir():
        assert min(Image.open(path).size) >= 400
