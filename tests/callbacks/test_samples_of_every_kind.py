"""Masks, labels, names and sizes as data sets have them."""

import json
import warnings

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchmetrics
from audit_cases import trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from sklearn.metrics import average_precision_score
from torch.utils.data import DataLoader
from twin_modules import COUNT, Data, Plain, example, network

from libragrad_lightning import explain
from libragrad_lightning.callbacks import LibraGradAudit, Pictures, Samples, ShortcutAlarm
from libragrad_lightning.metrics import SegmentationAP

pytestmark = pytest.mark.rotating


def audited(tmp_path, loader, module=None, **arguments):
    arguments = {"max_samples": COUNT, "num_images": 0, "print_summary": False} | arguments
    callback = LibraGradAudit(**({"metrics": ["segmentation_ap"]} | arguments))
    trainer(tmp_path, [callback], logger=False).validate(module or Plain(), loader, verbose=False)
    return callback


def with_masks(change):
    """All samples with other masks, in one batch each."""
    return DataLoader(Data(lambda i: (*example(i)[:2], change(i, example(i)[2]))), 4)


def edge(mask):
    """The pixels around an object, one wide."""
    wide = F.max_pool2d(mask[None].float(), 3, 1, 1)[0] > 0
    return wide & ~mask


def precision(ignore=lambda mask: torch.zeros_like(mask)):
    images, masks = (torch.stack([example(i)[k] for i in range(COUNT)]) for k in (0, 2))
    maps = explain(network(), images).heatmap((32, 32))
    counted = [~ignore(mask) for mask in masks]
    return np.mean(
        [
            average_precision_score(mask[c], scores[c].detach())
            for mask, scores, c in zip(masks, maps, counted, strict=True)
        ]
    )


def void(i, mask):
    """VOC: classes from 1, and 255 around objects."""
    marks = mask.to(torch.uint8) * (1 + i % 3)
    return marks.masked_fill(edge(mask), 255)


def negative(i, mask):
    return mask.to(torch.int16).masked_fill(edge(mask), -1)


@pytest.mark.parametrize("change", [void, negative])
def test_void_pixels_do_not_count(tmp_path, change):
    found = audited(tmp_path, with_masks(change)).history[0].values["segmentation_ap/libra"]
    assert found == pytest.approx(precision(edge), rel=1e-4)
    assert found != pytest.approx(precision(), rel=1e-2)


def test_255_is_an_object_where_nothing_else_is(tmp_path):
    loader = with_masks(lambda i, mask: mask.to(torch.uint8) * 255)
    found = audited(tmp_path, loader).history[0].values["segmentation_ap/libra"]
    assert found == pytest.approx(precision(), rel=1e-4)


def test_what_255_is_does_not_depend_on_the_image(tmp_path):
    def mostly_void(i, mask):
        return torch.where(mask, 255, 0) if i else void(i, mask)

    values = audited(tmp_path, with_masks(mostly_void)).history[0].values
    assert values["segmentation_ap/libra"] == pytest.approx(first_precision(), rel=1e-4)


def first_precision():
    image, _, mask = example(0)
    scores = explain(network(), image[None]).heatmap((32, 32))[0].detach()
    counted = ~edge(mask)
    return average_precision_score(mask[counted], scores[counted])


def test_the_reason_for_a_missing_metric_is_said_once(tmp_path):
    loader = DataLoader(Data(lambda i: example(i)[:2]), 4)
    with pytest.warns(UserWarning, match="no value for `segmentation_ap`, which needs object") as w:
        audited(tmp_path, loader)
    assert sum("segmentation_ap" in str(one.message) for one in w) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="LibraGradAudit")
        callback = LibraGradAudit(max_samples=4, num_images=0, print_summary=False)
        trainer(tmp_path, [callback], logger=False).validate(Plain(), loader, verbose=False)


def sizes(i):
    image, label, mask = example(i)
    if i % 3 == 0:
        return image[:, :24], label, mask[:24]
    return image, label, mask


def by_size(items):
    return torch.utils.data.default_collate(items)


class Resized(Plain):
    """Images of other sizes are padded in the network."""

    def __init__(self):
        super().__init__()
        size = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}
        torch.manual_seed(3)
        self.net = timm.create_model(
            "vit_tiny_patch16_224", num_classes=4, dynamic_img_size=True, **size
        )


def test_images_of_several_sizes_are_explained_size_by_size(tmp_path):
    loader = DataLoader(Data(sizes), 1, collate_fn=by_size)
    module = Resized()
    names = ["segmentation_ap", "relative_completeness_error", "srg", "drift_cosine"]
    callback = LibraGradAudit(
        metrics=names,
        max_samples=COUNT,
        num_images=3,
        pictures=Pictures(size=32),
        print_summary=False,
    )
    run = trainer(tmp_path, [callback], max_epochs=2)
    run.fit(module, DataLoader(Data(sizes), 1), loader)
    first, second = callback.history
    assert first.samples == COUNT
    assert first.values["relative_completeness_error/libra"] < 1e-4
    assert "drift_cosine/libra" in second.values
    expected = []
    for i in range(COUNT):
        image, _, mask = sizes(i)
        scores = explain(module.eval(), image[None]).heatmap(tuple(mask.shape))[0].detach()
        expected.append(average_precision_score(mask.flatten(), scores.flatten()))
    assert second.values["segmentation_ap/libra"] == pytest.approx(np.mean(expected), rel=1e-3)


NAMES = ("cat", "dog", "fox", "owl")


@pytest.mark.parametrize(
    "names",
    [
        NAMES,
        list(NAMES),
        dict(enumerate(NAMES)),
        {str(i): n for i, n in enumerate(NAMES)},
        {n: i for i, n in enumerate(NAMES)},
    ],
    ids=["tuple", "list", "numbers", "numbers as text", "name to number"],
)
def test_class_names_come_in_any_form(tmp_path, panels, names):
    class Named(Plain):
        class_names = names

    loader = DataLoader(Data(example), 4)
    audited(tmp_path, loader, Named(), num_images=4, pictures=Pictures(size=32))
    assert [p.caption.split("  |  ")[0] for p in panels] == [f"label {name}" for name in NAMES]


def test_a_file_of_class_names_gets_a_sentence():
    with pytest.raises(
        MisconfigurationException, match=r"list of names.*'names.json'.*read the nam"
    ):
        LibraGradAudit(pictures=Pictures(class_names="names.json"))


def test_arguments_may_be_one_thing_instead_of_a_list(tmp_path):
    loader = DataLoader(Data(example), 4)
    callback = audited(tmp_path, loader, rules="libra", metrics="srg")
    assert set(callback.history[0].values) == {"srg/libra", "accuracy"}


class Brightness(torchmetrics.Metric):
    """A metric of a user's own, beside masks."""

    higher_is_better = True

    def __init__(self):
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, attribution, mask):
        self.total += (attribution * mask).sum()
        self.count += len(attribution)

    def compute(self):
        return self.total / self.count


def test_own_torchmetrics_can_be_given_beside_names(tmp_path):
    loader = DataLoader(Data(example), 4)
    metrics = ["segmentation_ap", Brightness(), SegmentationAP()]
    values = audited(tmp_path, loader, metrics=metrics).history[0].values
    assert values["SegmentationAP/libra"] == values["segmentation_ap/libra"]
    images, masks = (torch.stack([example(i)[k] for i in range(COUNT)]) for k in (0, 2))
    expected = (explain(network(), images).heatmap((32, 32)) * masks).sum() / COUNT
    assert values["Brightness/libra"] == pytest.approx(float(expected), rel=1e-3)


def test_an_alarm_for_a_metric_that_no_audit_logs_is_refused_at_the_start(tmp_path):
    alarm = ShortcutAlarm("val_loss", "audit/energy/libra")
    run = trainer(tmp_path, [LibraGradAudit(), alarm], logger=False)
    loader = DataLoader(Data(example), 4)
    with pytest.raises(
        MisconfigurationException, match="`audit/energy/libra`, which is not logged"
    ):
        run.fit(Plain(), loader, loader)
    assert run.global_step == 0


class Diverging(Plain):
    """Has scores that are not finite, of one image or of all."""

    broken: tuple[int, ...] = ()
    at_epoch = 0

    def forward(self, x):
        scores = self.net(x)
        if self.current_epoch < self.at_epoch or self.training:
            return scores
        sums = x.flatten(1).sum(1)
        bad = torch.stack([(sums - example(i)[0].sum()).abs() < 1e-3 for i in self.broken]).any(0)
        return torch.where(bad[:, None], float("nan"), scores)


def test_one_image_without_finite_scores_is_counted_apart(tmp_path):
    module = Diverging()
    module.broken = (2,)
    loader = DataLoader(Data(example), 4)
    with pytest.warns(UserWarning, match="leaves out 1 of 12 images, whose scores are not finite"):
        callback = audited(tmp_path, loader, module)
    assert callback.history[0].samples == COUNT - 1


def test_a_run_that_diverges_says_so_and_logs_nan_where_there_was_a_value(tmp_path):
    module = Diverging()
    module.broken, module.at_epoch = tuple(range(COUNT)), 1
    callback = LibraGradAudit(
        metrics=["srg", "segmentation_ap"], max_samples=COUNT, num_images=0, print_summary=False
    )
    loader = DataLoader(Data(example), 4)
    run = trainer(tmp_path, [callback], logger=False, max_epochs=2, num_sanity_val_steps=0)
    with pytest.warns(UserWarning, match="leaves out 12 of 12 images.*may have diverged"):
        run.fit(module, loader, loader)
    first, second = callback.history
    assert first.values.keys() == second.values.keys()
    assert all(np.isfinite(list(first.values.values())))
    assert np.isnan(second.values["srg/libra"])
    assert np.isnan(float(run.callback_metrics["audit/srg/libra"]))


class Certain(Plain):
    """So certain that the gradient of the probability is zero."""

    def __init__(self):
        super().__init__()
        self.net.head.weight.data *= 1e4


def test_maps_without_information_are_counted_and_never_scored(tmp_path):
    loader = DataLoader(Data(example), 4)
    names = ["srg", "mif_accuracy_drop", "segmentation_ap", "degenerate_rate"]
    with pytest.warns(UserWarning, match="does not score maps that are the same everywhere"):
        callback = audited(tmp_path, loader, Certain(), metrics=names, reward="probability")
    values = callback.history[0].values
    assert values["degenerate_rate/libra"] == 1.0
    assert not {"srg/libra", "segmentation_ap/libra"} & set(values)


def test_a_folder_that_cannot_be_written_is_said_and_ends_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    callback = LibraGradAudit(max_samples=4, num_images=2, print_summary=False)
    loader = DataLoader(Data(example), 4)
    run = trainer(
        tmp_path / "file" / "logs",
        [callback],
        logger=False,
        max_epochs=1,
        enable_checkpointing=False,
    )
    with pytest.warns(UserWarning, match="cannot write pictures to .*`default_root_dir`"):
        run.fit(Plain(), loader, loader)
    assert len(callback.history) == 1


def test_the_operator_in_use_is_written(tmp_path):
    callback = audited(tmp_path, DataLoader(Data(example), 4), metrics=["srg"])
    assert callback.history[0].perturbation == "drop_tokens"


class Logging(Plain):
    def forward(self, x):
        scores = self.net(x)
        self.log("mean_score", scores.mean(), batch_size=len(x))
        return scores


def test_what_forward_logs_is_not_logged_again(tmp_path):
    found = []
    for callbacks in ([], [LibraGradAudit(max_samples=4, num_images=0, print_summary=False)]):
        run = trainer(tmp_path, callbacks, logger=False, max_epochs=1)
        loader = DataLoader(Data(example), 4)
        run.fit(Logging(), loader, loader)
        found.append(float(run.callback_metrics["mean_score"]))
    assert found[0] == found[1]


def test_settings_of_a_checkpoint_are_plain(tmp_path):
    callback = LibraGradAudit(forward=lambda m, x: m(x), unpack=lambda b: Samples(b[0]))
    assert json.loads(json.dumps(callback.state_dict()["settings"]))
