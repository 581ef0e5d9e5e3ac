"""Each task has its own rewards, targets, deletion scores and captions."""

import pytest
import torch
import torch.nn.functional as F
from audit_cases import trainer
from torch.utils.data import DataLoader, TensorDataset
from twin_modules import Plain, network

from libragrad_lightning import explain
from libragrad_lightning.callbacks import Deletion, LibraGradAudit, Pictures

pytestmark = pytest.mark.rotating

COUNT, CLASSES = 8, 3
LEVELS = (0.25, 0.5)


class Task(Plain):
    """A network with some scores, and a loss."""

    def __init__(self, outputs, loss, squeeze=False):
        super().__init__()
        self.net = network()
        self.net.reset_classifier(outputs)
        torch.manual_seed(5)
        self.net.head.weight.data.normal_()
        self.loss, self.squeeze = loss, squeeze

    def forward(self, x):
        scores = self.net(x)
        return scores.squeeze(1) if self.squeeze else scores

    def step(self, batch):
        return self.loss(self(batch[0]), batch[1])


def images():
    return torch.randn(COUNT, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def audited(tmp_path, module, labels, **arguments):
    names = arguments.pop("metrics", ["mif_aopc", "lif_aopc", "relative_completeness_error"])
    callback = LibraGradAudit(
        metrics=names,
        max_samples=COUNT,
        num_images=arguments.pop("num_images", 0),
        pictures=Pictures(size=32, class_names=arguments.pop("class_names", None)),
        print_summary=False,
        deletion=Deletion(levels=LEVELS),
        **arguments,
    )
    run = trainer(tmp_path, [callback], logger=False)
    loader = DataLoader(TensorDataset(images(), labels), 4)
    run.validate(module, loader, verbose=False)
    return callback.history[-1].values


BINARY = torch.arange(COUNT) % 2
SEVERAL = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 0]] * 2)
QUANTITIES = torch.linspace(0, 3, COUNT)


def bce(scores, labels):
    return F.binary_cross_entropy_with_logits(scores, labels.float().view_as(scores))


def mse(scores, labels):
    return F.mse_loss(scores, labels.view_as(scores))


CASES = {
    "binary, integers": (1, bce, False, BINARY, "binary"),
    "binary, floats": (1, bce, False, BINARY.float(), "binary"),
    "binary, squeezed": (1, bce, True, BINARY.float(), "binary"),
    "regression": (1, mse, False, QUANTITIES, "regression"),
    "regression, squeezed": (1, F.l1_loss, True, QUANTITIES, "regression"),
    "regression of 0 and 1": (1, mse, False, BINARY.float(), "regression"),
    "several labels": (3, bce, False, SEVERAL, "multilabel"),
    "several labels, floats": (3, bce, False, SEVERAL.float(), "multilabel"),
    "one-hot under sigmoids": (3, bce, False, F.one_hot(torch.arange(COUNT) % 3), "multilabel"),
    "soft labels": (
        3,
        F.cross_entropy,
        False,
        torch.eye(3)[torch.arange(COUNT) % 3] * 0.7 + 0.1,
        "multiclass",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_task_is_told_by_the_loss_and_the_labels(tmp_path, name):
    outputs, loss, squeeze, labels, task = CASES[name]
    module = Task(outputs, loss, squeeze)
    found = audited(tmp_path, module, labels)
    assert found["relative_completeness_error/libra"] < 1e-4
    scores = module.net.eval()(images()).detach()
    expected = correctness(scores, labels, task)
    assert found["mean_absolute_error" if task == "regression" else "accuracy"] == pytest.approx(
        float(expected), abs=1e-5
    )


def test_the_first_of_several_labels_is_not_taken_for_the_class_that_they_were_made_of(tmp_path):
    class BesideAClass(Task):
        def validation_step(self, batch, batch_idx):
            super().validation_step((batch["image"], batch["true"]), batch_idx)

    labels = torch.tensor([[1, 0, 1], [0, 1, 1]] * (COUNT // 2))
    batches = [
        {"image": image, "label": true.argmax(), "true": true}
        for image, true in zip(images(), labels, strict=True)
    ]
    module = BesideAClass(3, bce)
    callback = LibraGradAudit(metrics=["mif_aopc"], max_samples=COUNT, print_summary=False)
    run = trainer(tmp_path, [callback], logger=False)
    run.validate(module, DataLoader(batches, 4), verbose=False)
    scores = module.net.eval()(images()).detach()
    expected = correctness(scores, labels, "multilabel")
    assert callback.history[-1].values["accuracy"] == pytest.approx(float(expected), abs=1e-5)


def correctness(scores, labels, task):
    if task == "regression":
        return (scores[:, 0] - labels).abs().mean()
    if task == "multilabel":
        return ((scores > 0) == (labels > 0)).float().mean()
    if task == "binary":
        return ((scores[:, 0] > 0) == (labels > 0)).float().mean()
    return (scores.argmax(1) == labels.argmax(1)).float().mean()


def deleted(model, maps, levels=LEVELS):
    """Scores after leaving out the most influential patches, `[B, S, C]`, by timm's own code."""
    tokens = model.patch_embed(images())
    tokens = torch.cat([model.cls_token.expand(COUNT, -1, -1), tokens], 1) + model.pos_embed
    order = maps.flatten(1).argsort(1, descending=True)
    found = []
    for level in levels:
        kept = order[:, int(level * order.shape[1]) :].sort(1).values + 1
        kept = torch.cat([torch.zeros(COUNT, 1, dtype=torch.int64), kept], 1)
        rest = torch.stack([t[k] for t, k in zip(tokens, kept, strict=True)])
        found.append(model.head(model.norm(model.blocks(rest))[:, 0]))
    return torch.stack(found, 1).detach()


def test_regression_measures_relative_change(tmp_path):
    module = Task(1, mse)
    model = module.net.eval()
    found = audited(tmp_path, module, QUANTITIES)
    maps = explain(model, images(), task="regression").attribution
    intact = model(images()).detach()[:, None]
    expected = ((intact - deleted(model, maps)) / intact.abs()).mean()
    assert found["mif_aopc/libra"] == pytest.approx(float(expected), rel=1e-3)
    assert "srg/libra" not in found


def test_an_output_of_several_can_be_chosen(tmp_path):
    module = Task(3, F.mse_loss)
    labels = torch.stack([QUANTITIES, QUANTITIES**2, -QUANTITIES], 1)
    model = module.net.eval()
    found = audited(tmp_path, module, labels, target=1)
    maps = explain(model, images(), task="regression", target=1).attribution
    intact = model(images()).detach()[:, None, 1]
    expected = ((intact - deleted(model, maps)[:, :, 1]) / intact.abs()).mean()
    assert found["mif_aopc/libra"] == pytest.approx(float(expected), rel=1e-3)


def test_every_label_of_an_image_is_explained(tmp_path):
    module = Task(3, bce)
    model = module.net.eval()
    found = audited(tmp_path, module, SEVERAL, target="label", metrics=["mif_accuracy_drop"])
    rows, labels = SEVERAL.nonzero(as_tuple=True)
    drops = []
    for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
        maps = explain(model, images(), task="multilabel", target=label).attribution
        drops.append((deleted(model, maps)[row, :, label] <= 0).float().mean())
    assert found["mif_accuracy_drop/libra"] == pytest.approx(float(sum(drops) / len(drops)))


def test_the_best_label_is_explained_by_default(tmp_path):
    module = Task(3, bce)
    model = module.net.eval()
    found = audited(tmp_path, module, SEVERAL, metrics=["mif_accuracy_drop"])
    best = model(images()).argmax(1)
    maps = explain(model, images(), task="multilabel", target=best).attribution
    scores = deleted(model, maps).gather(2, best[:, None, None].expand(-1, len(LEVELS), 1))
    assert found["mif_accuracy_drop/libra"] == pytest.approx(float((scores <= 0).float().mean()))


def test_a_task_can_be_named(tmp_path):
    module = Task(3, F.cross_entropy)
    found = audited(tmp_path, module, torch.arange(COUNT) % 3, task="multiclass")
    assert "accuracy" in found
    module = Task(1, lambda scores, _: scores.mean())
    found = audited(tmp_path, module, BINARY, task="regression")
    assert "mean_absolute_error" in found


def test_metrics_that_make_no_sense_are_said_with_their_reason(tmp_path):
    with pytest.warns(UserWarning, match="no value for `srg`, which is not defined for regression"):
        audited(tmp_path, Task(1, mse), QUANTITIES, metrics=["srg", "mif_aopc"])
    with pytest.warns(
        UserWarning, match="no value for `segmentation_ap`, which needs object masks"
    ):
        audited(
            tmp_path, Task(3, F.cross_entropy), torch.arange(COUNT) % 3, metrics="segmentation_ap"
        )


def test_captions_say_what_the_task_says(tmp_path, panels):
    names = ["cat", "dog", "fox"]
    module = Task(3, bce)
    audited(tmp_path, module, SEVERAL, num_images=2, class_names=names)
    scores = module.net.eval()(images())[0].sigmoid().tolist()
    likely = sorted((i for i in range(3) if scores[i] > 0.5), key=lambda i: -scores[i])
    said = ", ".join(f"{names[i]} {scores[i]:.2f}" for i in likely) or "none"
    assert panels[0].caption.startswith(f"labels cat, fox  |  predicted {said}  |  explained ")
    panels.clear()
    module = Task(1, mse)
    audited(tmp_path, module, QUANTITIES, num_images=1)
    output = float(module.net.eval()(images())[0])
    assert panels[0].caption == f"label 0  |  output {output:.4g}"


@pytest.mark.parametrize("none", [-1, -100])
def test_samples_without_a_label_have_none(tmp_path, panels, none):
    labels = torch.arange(COUNT) % 3
    labels[0] = none
    module = Task(3, lambda scores, labels: F.cross_entropy(scores, labels, ignore_index=none))
    found = audited(tmp_path, module, labels, num_images=2)
    assert panels[0].caption.startswith("predicted")
    assert panels[1].caption.startswith("label 1")
    scores = module.net.eval()(images())[1:]
    right = (scores.argmax(1) == labels[1:]).float().mean()
    assert found["accuracy"] == pytest.approx(float(right))
