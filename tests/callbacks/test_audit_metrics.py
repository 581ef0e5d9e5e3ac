"""What is measured is what the metrics say, and every argument works from YAML."""

import inspect

import numpy as np
import pytest
import torch
import yaml
from audit_cases import Classifier, loader, quick_audit, trainer
from jsonargparse import ArgumentParser
from libragrad_lightning.callbacks import LibraGradAudit
from libragrad_lightning.callbacks.audit_metrics import DEFAULT_METRICS, METRICS, Evidence
from libragrad_lightning.callbacks.module_reading import read_module
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from scipy.stats import spearmanr

from libragrad_lightning import metrics
from libragrad_lightning.attribution import Explanation
from libragrad_lightning.backward import LIBRA
from libragrad_lightning.perturbation import DeletionLogits

LEVELS = (0.1, 0.4, 0.9)
IMAGES, CLASSES = 5, 4


@pytest.fixture
def evidence():
    maps = torch.randn(IMAGES, 6, 6, dtype=torch.float64)
    nothing = torch.zeros(IMAGES, 0)
    explanation = Explanation(
        rules=LIBRA,
        attribution=maps,
        prefix=nothing,
        token_biases=nothing,
        image_biases=nothing,
        fullgrad_sums=torch.randn(2, IMAGES),
        logits=torch.randn(IMAGES, CLASSES),
        target=torch.randint(0, CLASSES, (IMAGES,)),
    )
    logits = torch.randn(2, IMAGES, len(LEVELS), CLASSES)
    masks = torch.rand(IMAGES, 12, 12) > 0.5
    previous = maps + torch.randn_like(maps)
    return Evidence(explanation, masks, DeletionLogits(*logits, "tokens"), previous)


def measured(name, evidence):
    entry = METRICS[name]
    metric = entry.create(LEVELS)
    entry.update(metric, evidence)
    return entry.value(metric)


def probabilities(logits, target):
    exponentials = np.exp(logits.double().numpy())
    shares = exponentials / exponentials.sum(-1, keepdims=True)
    return np.stack([shares[i, :, t] for i, t in enumerate(target.tolist())])


def area(curve, fractions):
    steps = np.diff(fractions)
    return float((steps * (curve[1:] + curve[:-1]) / 2).sum() / (fractions[-1] - fractions[0]))


def test_areas_under_deletion_and_insertion_curves(evidence):
    target, logits = evidence.explanation.target, evidence.deletion
    deleted = probabilities(logits.most_influential_first, target).mean(0)
    assert measured("deletion_auc", evidence) == pytest.approx(area(deleted, np.array(LEVELS)))
    # Inserting the most influential share s leaves what deleting the least influential 1 - s does.
    left = probabilities(logits.least_influential_first, target).mean(0)
    inserted, shares = left[::-1], 1 - np.array(LEVELS)[::-1]
    assert measured("insertion_auc", evidence) == pytest.approx(area(inserted, shares))


def test_drops_of_log_probability(evidence):
    explanation = evidence.explanation
    intact = np.log(probabilities(explanation.logits[:, None], explanation.target))
    for name, logits in (
        ("mif_log_odds_drop", evidence.deletion.most_influential_first),
        ("lif_log_odds_drop", evidence.deletion.least_influential_first),
    ):
        masked = np.log(probabilities(logits, explanation.target))
        assert measured(name, evidence) == pytest.approx((intact - masked).mean(), abs=1e-6)


def test_drift(evidence):
    first, second = (
        m.flatten(1).numpy() for m in (evidence.explanation.attribution, evidence.previous)
    )
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    assert measured("drift_cosine", evidence) == pytest.approx(
        1 - ((first * second).sum(1) / norms).mean()
    )
    ranks = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    assert measured("drift_rank", evidence) == pytest.approx(1 - np.mean(ranks))
    assert 0 < measured("drift_ssim", evidence) < 2


def test_maps_that_have_not_moved_have_no_drift(evidence):
    same = Evidence(evidence.explanation, None, None, evidence.explanation.attribution)
    for name in ("drift_cosine", "drift_rank", "drift_ssim"):
        assert measured(name, same) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("segmentation_ap", metrics.SegmentationAP),
        ("segmentation_max_f1", metrics.SegmentationMaxF1),
        ("mask_iou", metrics.MaskIoU),
        ("pixel_accuracy", metrics.PixelAccuracy),
        ("pointing_game", metrics.PointingGame),
        ("energy_inside", metrics.EnergyInside),
    ],
)
def test_metrics_beside_masks_look_at_the_upsampled_map(evidence, name, metric):
    expected = metric()(evidence.explanation.heatmap((12, 12)), evidence.masks)
    assert measured(name, evidence) == pytest.approx(float(expected))


def test_the_share_of_maps_that_explain_nothing(evidence):
    evidence.explanation.attribution[:2] = 1.0
    assert measured("degenerate_rate", evidence) == pytest.approx(0.4)


def history(tmp_path, **kwargs):
    callback = quick_audit(**({"num_images": 0, "levels": (0.2, 0.5)} | kwargs))
    run = trainer(tmp_path, [callback], logger=False, enable_checkpointing=False)
    torch.manual_seed(0)
    run.fit(Classifier(), loader(count=16), loader(count=16))
    return [record.values for record in callback.history]


def test_every_metric_is_logged_on_request_and_the_default_ones_without(tmp_path):
    names = [name for name in METRICS if name != "drift_ssim"]  # 4 x 4 patches are too few
    first, second = history(tmp_path, metrics=names)
    keys = {f"{name}/{rules}" for name in names for rules in ("plain", "libra")}
    sure = {key for key in keys if not key.startswith("energy")}  # maps may be negative throughout
    assert sure <= second.keys() <= keys
    assert first.keys() & sure == {key for key in sure if not key.startswith("drift")}
    default = history(tmp_path)[1]
    assert {key.partition("/")[0] for key in default} == set(DEFAULT_METRICS)
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


def test_blocks_can_be_named(tmp_path):
    module = Classifier()
    images = torch.randn(1, 3, 32, 32)
    assert read_module(module, images, None, ["net.blocks.1"]).blocks == (module.net.blocks[1],)
    found, named = (
        history(tmp_path, metrics=["segmentation_ap"], blocks=blocks)[0]
        for blocks in (None, ["net.blocks.1"])
    )
    assert found != named
    run = trainer(tmp_path, [quick_audit(blocks=["net.block.1"])])
    with pytest.raises(MisconfigurationException, match=r"no submodule 'net\.block\.1'"):
        run.fit(module, loader(), loader())


EVERYTHING = """
every_n_epochs: 2
every_n_train_steps: 100
at_start: true
at_end: true
max_overhead: 0.05
max_samples: 32
probe: [3, 1, 4]
rules: [libra]
method: genatt
target: 3
reward: logit
metrics: [srg, drift_cosine]
levels: [0.2, 0.5]
perturbation: pixels_blur
batch_size: 4
precision: module
backbone: net
blocks: [net.blocks.0]
unpack: libragrad_lightning.callbacks.unpack_batch
dataloader_idx: 1
num_images: 1
image_size: 64
image_mean: [0.5, 0.5, 0.5]
image_std: [0.2, 0.2, 0.2]
class_names: [cat, dog]
unknown: warn
on_error: warn
name: other
print_summary: false
"""


def parser():
    found = ArgumentParser(exit_on_error=False)
    found.add_subclass_arguments(LibraGradAudit, "callback")
    return found


def test_every_argument_works_from_yaml():
    arguments = yaml.safe_load(EVERYTHING)
    assert arguments.keys() == inspect.signature(LibraGradAudit).parameters.keys()
    config = {"class_path": "libragrad_lightning.callbacks.LibraGradAudit", "init_args": arguments}
    callback = parser().instantiate_classes(parser().parse_object({"callback": config})).callback
    assert callback.request.probe == (3, 1, 4)
    assert callback.schedule.every_n_train_steps == 100
    assert callback.auditor.settings.perturbation == "pixels_blur"
    assert callback.auditor.settings.in_float32 is False
    assert callback.auditor.settings.blocks == ("net.blocks.0",)
    assert callback.auditor.overhead.largest_share == 0.05
    assert callback.auditor.on_error == "warn"


def test_the_help_explains_every_argument():
    found = ArgumentParser()
    found.add_class_arguments(LibraGradAudit, "audit")
    explained = {action.dest: action.help for action in found._actions}
    for name in inspect.signature(LibraGradAudit).parameters:
        assert len(explained[f"audit.{name}"].split()) > 3, name
