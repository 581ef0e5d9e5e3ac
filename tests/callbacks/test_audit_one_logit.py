"""A head with one logit is that of a sigmoid: its classes are 0 and 1."""

import copy

import pytest
import torch
from audit_cases import SMALL, data, quick_audit, trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, TensorDataset

from libragrad_lightning import explain
from libragrad_lightning.attribution.explaining import explain_tokens
from libragrad_lightning.audit.metric_inputs import MetricInputs
from libragrad_lightning.audit.metric_table import DEFAULT_METRICS, METRICS
from libragrad_lightning.demo import ImageClassifier
from libragrad_lightning.metrics import (
    AOPC,
    DeletionAccuracy,
    DeletionAccuracyDrop,
    DeletionAUC,
    LogOddsDrop,
    SymmetricRelevanceGain,
)
from libragrad_lightning.metrics.functional import target_probability
from libragrad_lightning.models import explanation_state, read_token_model
from libragrad_lightning.perturbation import deletion_logits

pytestmark = pytest.mark.rotating

COUNT = 8
LEVELS = (0.3, 0.7)
# Structural similarity needs larger maps than 4 x 4 patches.
MEASURED = [
    name for name, entry in METRICS.items() if name != "drift_ssim" and entry.needs != "other_masks"
]


def binary_data():
    images, labels, masks = data(16).tensors
    # The middle is darker for one class and brighter for the other.
    images[:, :, 8:24, 8:24] += 2.0 * (labels % 2)[:, None, None, None] - 1.0
    return TensorDataset(images, labels % 2, masks)


def loader():
    return DataLoader(binary_data(), COUNT)


def one_logit():
    torch.manual_seed(1)
    return ImageClassifier("vit_tiny_patch16_224", SMALL, num_classes=1, lr=3e-3)


def two_logits(module):
    """The same classifier with a logit for each class: its softmax is the sigmoid."""
    twin = ImageClassifier("vit_tiny_patch16_224", SMALL, num_classes=2)
    weights = copy.deepcopy(module.model.state_dict())
    for name in ("head.weight", "head.bias"):
        weights[name] = torch.cat([-weights[name], weights[name]]) / 2
    twin.model.load_state_dict(weights)
    return twin


def fitted(tmp_path, epochs=2, **kwargs):
    module = one_logit()
    callback = quick_audit(**({"max_samples": COUNT, "num_images": 0, "levels": LEVELS} | kwargs))
    quiet = {"logger": False, "enable_checkpointing": False, "max_epochs": epochs}
    trainer(tmp_path, [callback], **quiet).fit(module, loader(), loader())
    return module, callback


def validated(tmp_path, module, **kwargs):
    callback = quick_audit(**({"max_samples": COUNT, "num_images": 0, "levels": LEVELS} | kwargs))
    trainer(tmp_path, [callback], logger=False).validate(module, loader(), verbose=False)
    return callback.history[-1].values


@pytest.mark.parametrize("reward", ["log_odds", "probability", "logit"])
@pytest.mark.parametrize("target", ["predicted", "label", 0, 1])
def test_a_fit_is_audited_as_with_two_logits(tmp_path, target, reward):
    settings = {"target": target, "reward": reward, "metrics": MEASURED}
    module, callback = fitted(tmp_path, **settings)
    found = callback.history[-1].values
    assert {key.partition("/")[0] for key in found} >= set(MEASURED) - {"energy_inside"}
    # The logit of a class among two says less than its log-odds, which one logit is.
    settings["reward"] = "log_odds" if reward == "logit" else reward
    expected = validated(tmp_path, two_logits(module), **settings)
    for key, value in expected.items():
        # One logit is twice as far from zero as each of two.
        scale = 2 if key.startswith("completeness_error") else 1
        assert found[key] == pytest.approx(scale * value, rel=1e-4, abs=2e-6), key


def test_deletion_is_measured_and_not_the_same_for_all_maps(tmp_path):
    _, callback = fitted(tmp_path, epochs=3)
    values = callback.history[-1].values
    assert {key.partition("/")[0] for key in values} == {*DEFAULT_METRICS, "accuracy"}
    assert values["mif_aopc/libra"] > values["lif_aopc/libra"]
    assert values["completeness_error/libra"] < 1e-5 < values["completeness_error/plain"]


@pytest.mark.parametrize("labels", [[0] * COUNT, [1] * COUNT, [0, 1] * (COUNT // 2)])
def test_metrics_are_those_of_the_binary_task(labels):
    module, images = one_logit(), binary_data().tensors[0][:COUNT]
    target = torch.tensor(labels)
    model = read_token_model(module, images)
    with explanation_state(module):
        (explanation,) = explain_tokens(model, images, target, target="label")
        maps = {"libra": explanation.attribution}
        deletion = deletion_logits(model, images, maps, LEVELS)["libra"]
    most, least = deletion.most_influential_first, deletion.least_influential_first
    informative = torch.ones(COUNT, dtype=torch.bool)
    inputs = MetricInputs(explanation, informative, deletion=deletion)
    intact, count = explanation.logits, len(LEVELS)
    assert intact.shape == (COUNT, 1)
    expected = {
        "mif_accuracy_drop": DeletionAccuracyDrop(count, "binary")(most, target),
        "lif_accuracy": DeletionAccuracy(count, "binary")(least, target),
        "mif_aopc": AOPC(count, "binary")(intact, most, target),
        "lif_aopc": AOPC(count, "binary")(intact, least, target),
        "mif_log_odds_drop": LogOddsDrop(count, "binary")(intact, most, target),
        "lif_log_odds_drop": LogOddsDrop(count, "binary")(intact, least, target),
        "srg": SymmetricRelevanceGain(count, "binary")(most, least, target),
        "deletion_auc": DeletionAUC(LEVELS)(target_probability(most, target, "binary")),
    }
    for name, value in expected.items():
        metric = METRICS[name].create(LEVELS, "binary")
        METRICS[name].update(metric, inputs)
        assert METRICS[name].value(metric) == pytest.approx(float(value), abs=1e-12), name


def test_the_two_classes_are_explained_with_opposite_signs(tmp_path):
    module, _ = fitted(tmp_path, epochs=1)
    images = binary_data().tensors[0][:COUNT]
    logits = module.eval()(images)[:, 0].detach()
    normal, abnormal = (explain(module, images, target=target) for target in (0, 1))
    torch.testing.assert_close(normal.attribution, -abnormal.attribution)
    torch.testing.assert_close(abnormal.target_logit, logits)
    torch.testing.assert_close(normal.target_logit, -logits)
    for explanation in (normal, abnormal):
        assert explanation.residuals.abs().max() < 1e-5
    predicted = explain(module, images)
    assert predicted.target.tolist() == (logits > 0).long().tolist()
    assert bool((predicted.target_logit >= 0).all())


def test_captions_name_both_classes_with_the_probability_of_the_sigmoid(tmp_path, panels):
    module, names = one_logit(), ("normal", "abnormal")
    images, labels, _ = binary_data().tensors
    # A bias that puts the decision between the images, so that both classes are predicted.
    with torch.no_grad():
        module.model.head.bias -= module.eval()(images[:COUNT]).median()
    callback = quick_audit(max_samples=COUNT, num_images=COUNT, class_names=names, target=1)
    trainer(tmp_path, [callback]).validate(module, loader(), verbose=False)
    abnormal = module.eval()(images)[:COUNT, 0].sigmoid().tolist()
    assert 0 < sum(p > 0.5 for p in abnormal) < COUNT == len(panels)
    for panel, label, p in zip(panels, labels.tolist(), abnormal, strict=False):
        predicted = f"abnormal {p:.2f}" if p > 0.5 else f"normal {1 - p:.2f}  |  explained abnormal"
        assert panel.caption.startswith(f"label {names[label]}  |  predicted {predicted}")


def test_labels_other_than_0_and_1_get_a_sentence(tmp_path):
    images, labels, masks = binary_data().tensors
    strange = DataLoader(TensorDataset(images, labels + 1, masks), COUNT)
    run = trainer(tmp_path, [quick_audit(target="label")], logger=False)
    match = "found the label 2, but the scores are those of classes 0 to 1"
    with pytest.raises(MisconfigurationException, match=match):
        run.validate(one_logit(), strange, verbose=False)
