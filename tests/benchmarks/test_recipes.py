"""Recipes are trained, measured and drawn, on a model of the smallest size."""

import re
import subprocess
import sys

import pytest
import torch

import recipes
import two_objects
from libragrad_lightning.cli import main

TINY = {"embed_dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The checkpoint of the demo, trained for a step, as the command line leaves it behind."""
    folder = tmp_path_factory.mktemp("recipes") / "demo" / "seed_0"
    small = [f"--model.init_args.model_kwargs.{name}={value}" for name, value in TINY.items()]
    small += ["--trainer.accelerator=cpu", "--trainer.max_steps=1", "--data.init_args.num_train=64"]
    small += ["--data.init_args.num_val=12"]

    def run(command, check):
        assert command[:3] == [sys.executable, "-m", "libragrad_lightning"]
        assert check
        main(command[3:])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", run)
        found = recipes.trained("demo", 3, folder, small)
        patch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("trained again"))
        assert recipes.trained("demo", 3, folder, small) == found
    return found


def test_seeds_decide_what_is_trained(checkpoint):
    kept = torch.load(checkpoint, weights_only=False)
    assert kept["global_step"] == 1
    assert kept["datamodule_hyper_parameters"]["seed"] == 3


def test_every_image_is_measured_once_and_the_values_are_kept(checkpoint, monkeypatch):
    values = recipes.measured("demo", checkpoint, 8)
    lengths = {name.partition("/")[0]: len(of) for name, of in values.items()}
    assert lengths == {
        "accuracy": 12,
        "segmentation AP": 8,
        "maximum on the object, where right": 8,
        "maximum near the object, where right": 8,
        "symmetric relevance gain": 8,
        "share on the named one of two": 100,
        "class discrimination": 100,
    }
    for rules in recipes.RULES:
        on, near = (values[f"maximum {w} the object, where right/{rules}"] for w in ("on", "near"))
        right = values["accuracy"][:8] == 1
        assert torch.equal(on.isnan(), ~right)
        assert (near[right] >= on[right]).all()
    monkeypatch.setattr(recipes, "opened", lambda *_: pytest.fail("measured again"))
    again = recipes.measured("demo", checkpoint, 8)
    assert again.keys() == values.keys()


def test_the_table_has_a_column_for_each_seed_and_one_for_all():
    first = {"accuracy": torch.tensor([1.0, 0.0]), "AP/plain": torch.tensor([0.2, torch.nan])}
    second = {"accuracy": torch.tensor([1.0, 1.0]), "AP/plain": torch.tensor([0.4, torch.nan])}
    for values in (first, second):
        values["AP/libra"] = 2 * values["AP/plain"]
    lines = recipes.table({0: first, 1: second}).splitlines()
    assert lines[0] == "| | seed 0 | seed 1 | all |"
    assert re.match(r"\| accuracy \| 0.500 \| 1.000 \| 0.750 \(0.500 to 1.000\) \|", lines[2])
    assert lines[3].startswith("| AP | 0.200 → 0.400 | 0.400 → 0.800 | 0.300 (")


def test_scenes_with_two_objects_are_drawn_one_in_a_line(checkpoint):
    scenes = recipes.demo_scenes(checkpoint)
    subject = recipes.opened(scenes, checkpoint)
    one, two = (two_objects.figure(scenes, subject, range(n), 64) for n in (1, 2))
    assert one.dtype == torch.uint8
    assert two.shape == (3, 2 * one.shape[1], one.shape[2])
