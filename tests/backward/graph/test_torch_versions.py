"""The range of torch releases: older ones are refused, newer ones are warned about."""

import re
import warnings
from pathlib import Path

import pytest
import torch

from libragrad_lightning.backward.graph.versions import NEWEST, OLDEST, check_torch_version


def version(release, suffix=""):
    return f"{release[0]}.{release[1]}.{suffix or 0}"


@pytest.mark.parametrize("suffix", ["0", "1+cpu", "2+cu130", "0a0+git1234567", "0.dev20260101"])
def test_tested_releases_pass_in_silence(suffix):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for release in (OLDEST, NEWEST, (OLDEST[0], OLDEST[1] + 1)):
            check_torch_version(version(release, suffix))


@pytest.mark.parametrize("release", [(1, 13), (2, OLDEST[1] - 1)])
def test_older_releases_are_refused(release):
    with pytest.raises(ImportError, match=rf"{release[0]}\.{release[1]}.*install torch>="):
        check_torch_version(version(release))


@pytest.mark.parametrize("release", [(2, NEWEST[1] + 1), (3, 0)])
def test_newer_releases_are_warned_about(release):
    with pytest.warns(UserWarning, match=r"were tested, but torch.*run `libragrad doctor`"):
        check_torch_version(version(release, "0+cpu"))


def test_the_installed_release_is_not_older_than_what_was_tested():
    assert tuple(map(int, torch.__version__.split(".")[:2])) >= OLDEST


def test_the_package_asks_for_what_the_engine_accepts():
    project = Path(__file__).parents[3] / "pyproject.toml"
    (bound,) = re.findall(r'"torch>=([\d.]+)"', project.read_text(encoding="utf-8"))
    assert tuple(map(int, bound.split("."))) == OLDEST
