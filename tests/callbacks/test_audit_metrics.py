"""Metrics are logged on request, and every argument works from YAML."""

from inspect import signature

import pytest
import torch
import yaml
from audit_cases import Classifier, loader, quick_audit, trainer
from jsonargparse import ArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from libragrad_lightning.attribution import METHODS
from libragrad_lightning.audit import DEFAULT_METRICS, METRICS, ProbeRequest, Source
from libragrad_lightning.backward import LIBRA
from libragrad_lightning.callbacks import (
    Deletion,
    LibraGradAudit,
    Pictures,
    Schedule,
    libragrad_audit,
    unpack_batch,
)
from libragrad_lightning.models import read_token_model
from libragrad_lightning.monitoring import AuditSession

pytestmark = pytest.mark.rotating


def history(tmp_path, **kwargs):
    callback = quick_audit(**({"num_images": 0, "levels": (0.2, 0.5)} | kwargs))
    run = trainer(tmp_path, [callback], logger=False, enable_checkpointing=False)
    torch.manual_seed(0)
    run.fit(Classifier(), loader(count=16), loader(count=16))
    return [record.values for record in callback.history]


def test_every_metric_is_logged_on_request_and_the_default_ones_without(tmp_path):
    # 4 x 4 patches are too few for one, and images have one object.
    names = [n for n, m in METRICS.items() if n != "drift_ssim" and m.needs != "other_masks"]
    first, second = history(tmp_path, metrics=names)
    keys = {f"{name}/{rules}" for name in names for rules in ("plain", "libra")} | {"accuracy"}
    sure = {key for key in keys if not key.startswith("energy")}  # maps may be negative throughout
    assert sure <= second.keys() <= keys
    assert first.keys() & sure == {key for key in sure if not key.startswith("drift")}
    default = history(tmp_path)[1]
    assert {key.partition("/")[0] for key in default} == {*DEFAULT_METRICS, "accuracy"}
    assert default.items() <= second.items()


def test_structural_similarity_of_small_maps_is_refused(tmp_path):
    with pytest.raises(ValueError, match="attribution"):
        history(tmp_path, metrics=["drift_ssim"])


def test_the_perturbation_decides_what_deletion_does(tmp_path):
    names = ["mif_aopc", "segmentation_ap"]
    tokens, dropped, zeroed, pixels = (
        history(tmp_path, metrics=names, perturbation=name)[0]
        for name in ("tokens", "drop_tokens", "zero_tokens", "pixels_mean")
    )
    assert tokens == dropped  # what a ViT allows
    aopc = {found["mif_aopc/libra"] for found in (dropped, zeroed, pixels)}
    assert len(aopc) == 3
    assert len({found["segmentation_ap/libra"] for found in (dropped, zeroed, pixels)}) == 1


def test_completeness_of_the_logit_is_measured_on_the_first_images_or_on_all(tmp_path):
    names = ["completeness_error", "reward_completeness_error", "segmentation_ap"]
    some, first, every = (
        history(tmp_path, metrics=names, max_samples=count, completeness_on=on)[0]
        for count, on in ((12, "some"), (8, "all"), (12, "all"))
    )
    assert some["completeness_error/plain"] == pytest.approx(first["completeness_error/plain"])
    assert some["completeness_error/plain"] != every["completeness_error/plain"]
    assert some["reward_completeness_error/plain"] > 1e-3
    for name in ("reward_completeness_error/plain", "segmentation_ap/libra"):
        assert some[name] == pytest.approx(every[name], rel=1e-5)
        assert some[name] != first[name]


def test_blocks_can_be_named(tmp_path):
    module = Classifier()
    images = torch.randn(1, 3, 32, 32)
    read = read_token_model(module, images, blocks=["net.blocks.1"])
    assert read.blocks == (module.net.blocks[1],)
    found, named = (
        history(tmp_path, metrics=["segmentation_ap"], blocks=blocks)[0]
        for blocks in (None, ["net.blocks.1"])
    )
    assert found != named
    run = trainer(tmp_path, [quick_audit(blocks=["net.block.1"])])
    with pytest.raises(MisconfigurationException, match=r"no submodule 'net\.block\.1'"):
        run.fit(module, loader(), loader())


EVERYTHING = """
max_samples: 32
probe: [3, 1, 4]
rules: [libra]
method: genatt
target: 3
task: multilabel
reward: logit
metrics: [srg, drift_cosine]
completeness_on: all
deletion:
  perturbation: pixels_blur
  levels: [0.2, 0.5]
  precision: bfloat16
batch_size: 4
precision: module
forward: net
backbone: net
blocks: [net.blocks.0]
unpack: libragrad_lightning.callbacks.unpack_batch
dataloader_idx: 1
num_images: 1
pictures:
  size: 64
  mean: [0.5, 0.5, 0.5]
  std: [0.2, 0.2, 0.2]
  class_names: [cat, dog]
  targets: 2
schedule:
  every_n_epochs: 2
  every_n_train_steps: 100
  at_start: true
  at_end: true
  max_overhead: 0.05
unknown: warn
on_error: warn
name: other
print_summary: false
"""
GROUPS = {"deletion": Deletion, "pictures": Pictures, "schedule": Schedule}


def parser():
    found = ArgumentParser(exit_on_error=False)
    found.add_subclass_arguments(LibraGradAudit, "callback")
    return found


def test_every_argument_works_from_yaml(monkeypatch):
    given = {}

    class Seen(AuditSession):
        def __init__(self, *args):
            given.update(zip(signature(AuditSession).parameters, args, strict=True))
            super().__init__(*args)

    monkeypatch.setattr(libragrad_audit, "AuditSession", Seen)
    arguments = yaml.safe_load(EVERYTHING)
    assert arguments.keys() == signature(LibraGradAudit).parameters.keys()
    for group, kind in GROUPS.items():
        assert arguments[group].keys() == signature(kind).parameters.keys()
    config = {"class_path": "libragrad_lightning.callbacks.LibraGradAudit", "init_args": arguments}
    callback = parser().instantiate_classes(parser().parse_object({"callback": config})).callback
    config = given["config"]
    assert config.request == ProbeRequest((3, 1, 4), 32, 1)
    assert config.source == Source("net", unpack_batch, "multilabel")
    assert config.rules == (LIBRA,)
    assert (config.method, config.target, config.reward) == (METHODS["genatt"], 3, "logit")
    assert config.metrics == ("srg", "drift_cosine")
    assert (config.perturbation, config.levels) == ("pixels_blur", (0.2, 0.5))
    assert config.deletes_in_bfloat16
    assert (config.batch_size, config.in_float32, config.unknown) == (4, False, "warn")
    assert (config.backbone, config.blocks) == ("net", ("net.blocks.0",))
    pictures = given["pictures"]
    assert (pictures.size, pictures.class_names, pictures.targets) == (64, ["cat", "dog"], 2)
    assert (pictures.mean, pictures.std) == ([0.5] * 3, [0.2] * 3)
    others = ("num_images", "max_overhead", "on_error", "name")
    assert [given[name] for name in others] == [1, 0.05, "warn", "other"]
    assert callback._schedule == Schedule(2, 100, True, True, 0.05)
    assert callback._prints is False


def test_the_help_explains_every_argument():
    found = ArgumentParser()
    found.add_class_arguments(LibraGradAudit, "audit")
    explained = {action.dest: action.help for action in found._actions}
    names = [
        f"{group}.{name}" for group, kind in GROUPS.items() for name in signature(kind).parameters
    ]
    for name in {*signature(LibraGradAudit).parameters, *names} - set(GROUPS):
        assert len(explained[f"audit.{name}"].split()) > 3, name
