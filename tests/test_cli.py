"""The command line: the demo's configuration runs, and every argument can be set from YAML."""

import importlib.util
import linecache
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import yaml

import libragrad_lightning
from libragrad_lightning.cli import main
from libragrad_lightning.commands import COMMANDS
from libragrad_lightning.parsing import is_users_mistake, parser_sentence

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
        "deletion": {"levels": [0.25, 0.5]},
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


OWN = """
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException

class Picky(Callback):
    def __init__(self, color: str = "red", count: int = 3):
        if color != "red":
            raise MisconfigurationException(f"Picky knows no {color!r}; change color to 'red'.")

class Late(Callback):
    def on_validation_start(self, trainer, module):
        raise MisconfigurationException("Late is never content; leave it out.")

class Broken(Callback):
    def __init__(self, size: int = 3):
        {}["a bug"]

class Garments(LightningDataModule):
    def __init__(self):
        super().__init__()
        int("a bug")
"""


@pytest.fixture
def configure(tmp_path, monkeypatch):
    """Write a configuration with certain callbacks and data, and return its path."""
    (tmp_path / "own_classes.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def configure(callbacks, data=None):
        config = yaml.safe_load((CONFIGS / "demo.yaml").read_text())
        config["trainer"]["callbacks"] = callbacks
        config["trainer"]["logger"] = False
        config["data"] = data or config["data"]
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(config))
        return str(path)

    return configure


def given(name, module="own_classes", **arguments):
    return {"class_path": f"{module}.{name}", "init_args": arguments}


def audit(**arguments):
    return given("LibraGradAudit", "libragrad_lightning.callbacks", **arguments)


def refused(arguments, capsys):
    """Run, and return the one line that standard error ends with."""
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "Namespace(" not in said
    assert "usage:" not in said
    return said.splitlines()[-1]


@pytest.mark.parametrize("in_list", [True, False])
def test_the_sentence_of_a_callback_stands_last(configure, capsys, in_list):
    for callback, sentence in (
        (given("Picky", color="blue"), "error: Picky knows no 'blue'; change color to 'red'."),
        (audit(metrics=["nope"]), "error: LibraGradAudit does not know the metrics ['nope']; `met"),
        (
            audit(method="nope"),
            "error: LibraGradAudit: Unknown method 'nope'; `method` takes one of",
        ),
    ):
        path = configure([callback] if in_list else callback)
        assert refused(["validate", "--config", path], capsys).startswith(sentence)


def test_the_sentence_of_a_run_and_of_a_data_module_stands_last(configure, capsys):
    path = configure([given("Late")])
    said = refused(["validate", "--config", path, *FAST], capsys)
    assert said == "error: Late is never content; leave it out."
    folder = given("ImageFolderDataModule", "libragrad_lightning.data", root="nowhere")
    path = configure([], folder | {"init_args": {"root": "nowhere", "model_name": "test_vit"}})
    said = refused(["validate", "--config", path], capsys)
    assert said == "error: nowhere/val holds no class folders; change root or the split's folder."


def test_wrong_arguments_are_named_with_the_nearest_right_one(configure, capsys):
    def said(callbacks, *arguments, data=None):
        return refused(["validate", "--config", configure(callbacks, data), *arguments], capsys)

    start = "error: trainer.callbacks: "
    message = "LibraGradAudit has no argument 'metrica'; change it to 'metrics'."
    assert said([audit(metrica=["srg"])]) == start + message
    nested = "--trainer.callbacks.metrica=[srg]"
    assert said([audit()], nested) == start + message
    assert said([given("Picky", speed=3)]) == (
        start + "Picky has no argument 'speed'; its arguments are color, count."
    )
    assert said([given("Picky", count="x")]) == (
        start + "own_classes.Picky: count: Expected a <class 'int'>. Got value: x"
    )
    assert said([given("Piky")]).startswith(start + "own_classes.Piky: module 'own_classes' has no")
    garments = given("GarmentsOnTextures", "libragrad_lightning.demo", num_trains=3)
    assert said([], data=garments) == (
        "error: data: GarmentsOnTextures has no argument 'num_trains'; change it to 'num_train'."
    )
    assert said([], "--trainer.max_epochs=many") == (
        "error: trainer.max_epochs: Expected a <class 'int'> (Given value: many)"
    )
    assert said([], "--trainer.speed=3").startswith("error: ")


def test_an_unknown_command_is_told_all_that_there_are(capsys):
    said = refused(["explian", "cat.jpg"], capsys)
    assert said.startswith("error: libragrad has no command 'explian'; it has fit, ")
    assert all(f" {name}" in said for name in COMMANDS)


def test_bugs_keep_their_traceback_and_only_their_own(configure):
    for callbacks, data, error, line in (
        ([given("Broken")], None, KeyError, '{}["a bug"]'),
        ([], given("Garments"), ValueError, 'int("a bug")'),
    ):
        with pytest.raises(error, match="a bug") as raised:
            main(["validate", "--config", configure(callbacks, data)])
        frames = traceback.extract_tb(raised.value.__traceback__)
        assert frames[-1].line == line
        shown = "".join(traceback.format_exception(raised.value))
        assert "Namespace(" not in shown
        assert "another exception" not in shown


def test_only_an_error_that_this_package_raises_itself_is_the_users(tmp_path):
    def raised(code, name):
        (tmp_path / "code.py").write_text(code)
        linecache.checkcache()
        spec = importlib.util.spec_from_file_location(name, tmp_path / "code.py")
        with pytest.raises(Exception, match="x") as caught:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        return caught.value

    own, other = "libragrad_lightning.code", "libragrad_lightning_of_someone"
    assert is_users_mistake(raised("raise ValueError(\n    'x'\n)", own))
    assert not is_users_mistake(raised("raise ValueError(\n    'x'\n)", other))
    assert not is_users_mistake(raised("int('x')", own))
    assert not is_users_mistake(raised("raise RuntimeError('x')", own))
    assert not is_users_mistake(ValueError("x"))


def test_messages_of_another_form_are_passed_on():
    assert parser_sentence("Something else\n  went wrong") == "Something else went wrong"
    assert parser_sentence("A:\nErrors:\n  - B\n  - B\n  - C") == "A: B, or C"
    assert parser_sentence("Errors:") == "Errors:"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--version"], [f"libragrad {libragrad_lightning.__version__}\n"]),
        (
            ["--help"],
            [
                "Train, validate or test a model with PyTorch Lightning, and audit what it looks",
                "--trainer.callbacks.help=libragrad_lightning.callbacks.LibraGradAudit\n",
            ],
        ),
        (
            ["fit", "--trainer.callbacks.help=libragrad_lightning.callbacks.LibraGradAudit"],
            ["--trainer.callbacks.metrics METRICS"],
        ),
    ],
)
def test_version_and_help(arguments, shown, capsys):
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 0
    printed = capsys.readouterr().out
    assert all(part in printed for part in shown)
