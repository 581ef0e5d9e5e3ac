"""``libragrad doctor``: what is installed, and whether it computes what it should."""

import pytest
import torch

from libragrad_lightning.cli import main
from libragrad_lightning.commands import doctor
from libragrad_lightning.diagnosis import OperationCheck


def test_versions_device_and_operations_are_told(capsys):
    main(["doctor"])
    python, packages, device, checked, verdict = capsys.readouterr().out.splitlines()
    assert python.startswith("python 3.")
    assert f"torch {torch.__version__}" in packages
    assert device.startswith("device cpu (") or device.startswith("device cuda (")
    assert "math" in device
    assert int(checked.split()[0]) > 150
    assert verdict == "all of them are as they should be"


def test_what_is_wrong_ends_in_one_sentence(monkeypatch, capsys):
    checks = [
        OperationCheck("roll", ("RollBackward0",), 0.0),
        OperationCheck("gelu", ("GeluBackward0",), 0.25),
        OperationCheck("flip", (), float("nan"), "No rule for FlipBackward9."),
    ]
    monkeypatch.setattr(doctor, "check_operations", lambda device: checks)
    with pytest.raises(SystemExit) as ending:
        main(["doctor"])
    assert ending.value.code == 2
    printed = capsys.readouterr()
    assert "  gelu: error 2.5e-01 in GeluBackward0\n" in printed.out
    assert "  flip: No rule for FlipBackward9.\n" in printed.out
    assert printed.err.splitlines()[-1].startswith("error: 2 of 3 operations are not explained as")


def test_arguments_are_refused(capsys):
    with pytest.raises(SystemExit) as ending:
        main(["doctor", "--fast"])
    assert ending.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
