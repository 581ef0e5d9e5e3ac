"""The command line: the demo's configuration runs, and every argument can be set from YAML."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from libragrad_lightning.cli import main

CONFIGS = Path(__file__).parents[1] / "configs"
FAST = [
    "--trainer.fast_dev_run=true",
    "--data.init_args.num_train=64",
    "--data.init_args.num_val=32",
    "--data.init_args.num_test=32",
]


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_the_demo_runs(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main([command, "--config", str(CONFIGS / "demo.yaml"), *FAST])
    assert "Explanation audit" in capsys.readouterr().out


def test_arguments_of_the_audit_come_from_yaml(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((CONFIGS / "demo.yaml").read_text())
    config["trainer"]["callbacks"][0]["init_args"] |= {
        "rules": ["libra", "attn_lrp", "plain"],
        "method": "input_x_gradient",
        "target": "label",
        "reward": "probability",
        "metrics": ["srg", "completeness_error"],
        "levels": [0.25, 0.5],
        "num_images": 0,
    }
    config["trainer"]["callbacks"].pop()
    path = tmp_path / "audit.yaml"
    path.write_text(yaml.safe_dump(config))
    main(["validate", "--config", str(path), *FAST])
    printed = capsys.readouterr().out
    assert "attn_lrp" in printed
    assert "segmentation" not in printed


def test_the_module_is_the_command():
    help_text = subprocess.run(
        [sys.executable, "-m", "libragrad_lightning", "--help"],
        check=True,
        capture_output=True,
        text=True,
        cwd=CONFIGS.parent,
        timeout=120,
    ).stdout
    assert all(command in help_text for command in ("fit", "validate", "test"))
    assert "predict" not in help_text
