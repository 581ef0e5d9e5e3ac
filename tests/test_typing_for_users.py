"""Type checkers find the package's types in a stranger's project, however it was installed."""

import json
import re
import subprocess
import sys

import pytest
from distributions import built_wheel, copied_source, environment_with

pytestmark = pytest.mark.slow

PROGRAM = """\
import lightning as L
import torch
from callbacks import PATIENCE
from libragrad_lightning import compare, explain
from libragrad_lightning.backward import LIBRA, grad
from libragrad_lightning.callbacks import LibraGradAudit, Schedule, ShortcutAlarm
from libragrad_lightning.data import ImageFolderDataModule
from libragrad_lightning.metrics import SegmentationAP
from libragrad_lightning.metrics.functional import symmetric_relevance_gain
from torch import nn
from typing_extensions import assert_type

audit = LibraGradAudit(schedule=Schedule(every_n_epochs=2), max_samples=64)
alarm = ShortcutAlarm("val_acc", "audit/energy_inside/libra", patience=PATIENCE)
trainer = L.Trainer(callbacks=[audit, alarm])
images = torch.rand(2, 3, 64, 64)
explanation = explain(nn.Identity(), images, rules=LIBRA)
assert_type(audit, LibraGradAudit)
assert_type(explanation.attribution, torch.Tensor)
assert_type(compare(nn.Identity(), images).explanations["a"].heatmap((8, 8)), torch.Tensor)
assert_type(grad(images.sum(), images, rules=LIBRA)[0], torch.Tensor)
assert_type(SegmentationAP().compute(), torch.Tensor)
assert_type(symmetric_relevance_gain(images, images, images), torch.Tensor)
assert_type(ImageFolderDataModule("data").setup("fit"), None)
LibraGradAudit(max_samples="many")
explain(nn.Identity(), images, tagret=0)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a folder of callbacks of its own, as many have."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "callbacks").mkdir()
    (folder / "callbacks" / "__init__.py").write_text("PATIENCE = 3\n")
    (folder / "program.py").write_text(PROGRAM)
    return folder


@pytest.fixture(scope="module", params=["editable", "wheel"])
def python(request, tmp_path_factory):
    """The interpreter of an environment with the package, installed either way."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "editable":
        return environment_with(folder / "environment", "--editable", copied_source(folder))
    return environment_with(folder / "environment", built_wheel(folder))


def said(checker, project):
    """What a checker prints of the program."""
    command = [sys.executable, "-m", *checker, "program.py"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False).stdout


def mypy(python, project):
    """The lines in which mypy sees an error, with what it says."""
    text = said(["mypy", "--strict", "--python-executable", str(python)], project)
    return {
        int(n): m for n, m in re.findall(r"^program\.py:(\d+): error: (.*)$", text, re.MULTILINE)
    }


def pyright(python, project):
    """The lines in which pyright sees an error, with what it says."""
    text = said(["pyright", "--pythonpath", str(python), "--outputjson"], project)
    found = json.loads(text)["generalDiagnostics"]
    errors = (entry for entry in found if entry["severity"] == "error")
    return {entry["range"]["start"]["line"] + 1: entry["message"] for entry in errors}


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_types_are_found_and_mistakes_are_told(checker, python, project):
    lines = enumerate(PROGRAM.splitlines(), 1)
    mistakes = {number for number, line in lines if re.search("many|tagret", line)}
    told = checker(python, project)
    assert set(told) == mistakes, told
