"""What `benchmarks/on_cuda.py` finds on a device holds; on a CPU the command itself is tested."""

import math

import pytest
import torch

import on_cuda
from cuda_findings import HEADER, Finding, Setup, misses
from cuda_kernels import kernel_cases, kernel_findings, norm_findings
from cuda_models import model_findings
from cuda_neutrality import SETTINGS, compared

SECTIONS = {"kernels": kernel_findings, "norms": norm_findings, "models": model_findings}


def setup(device):
    return Setup(torch.device(device), tiny=True)


@pytest.mark.parametrize("section", SECTIONS)
def test_small_things_are_exact_on_the_cpu(section):
    found = list(SECTIONS[section](setup("cpu")))
    assert len(found) > 5
    assert misses(found) == []


@pytest.mark.gpu
@pytest.mark.parametrize("section", SECTIONS)
def test_small_things_are_exact_on_a_device(section):
    found = list(SECTIONS[section](setup("cuda")))
    assert len(found) > 5
    assert misses(found) == []


@pytest.mark.gpu
def test_every_kernel_of_a_device_takes_some_call():
    tried = {case.backend.name for case in kernel_cases(setup("cuda"))}
    found = {f.what.split(",")[0].upper() for f in kernel_findings(setup("cuda"))}
    assert found == tried


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["32-true", "channels last, ResNet"])
def test_a_run_is_the_same_on_the_cpu(name):
    found = compared(name, SETTINGS[name], setup("cpu"))
    assert found.value == 0, found.note


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_is_the_same_on_a_device(name):
    found = compared(name, SETTINGS[name], setup("cuda"))
    assert found.value == 0, found.note


def test_a_value_that_could_not_be_found_is_a_miss():
    assert [f.what for f in misses([Finding("a", math.nan, 1.0), Finding("b", 1.0, 1.0)])] == ["a"]
    assert misses([Finding("c", math.nan)]) == []


def test_the_command_writes_its_page(tmp_path, capsys):
    path = tmp_path / "page.md"
    assert on_cuda.main(["--device", "cpu", "--sections", "norms", "--output", str(path)]) == 0
    page = path.read_text()
    assert f"| {' | '.join(HEADER)} |" in page
    assert "0 of 20 above their limits" in page
    assert "layer norm, float64" in capsys.readouterr().out


def test_what_does_not_fit_into_the_time_is_said(capsys):
    on_cuda.main(["--device", "cpu", "--sections", "norms", "--seconds", "0"])
    assert "left out, for want of time" in capsys.readouterr().out
