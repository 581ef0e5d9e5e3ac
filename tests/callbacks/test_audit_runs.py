"""Whole Trainer runs with the audit."""

import csv
import math
import pickle
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from audit_cases import Classifier, audit, data, loader, trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from libragrad_lightning import explain
from libragrad_lightning.audit import AuditRun
from libragrad_lightning.callbacks import Samples
from libragrad_lightning.metrics import SegmentationAP

pytestmark = pytest.mark.rotating

DRIFT_METRICS = ("drift_cosine", "drift_rank")
KEYS = {
    f"{metric}/{rules}"
    for metric in (
        "mif_accuracy_drop",
        "lif_accuracy",
        "mif_aopc",
        "lif_aopc",
        "srg",
        "segmentation_ap",
        "energy_inside",
        "completeness_error",
        "relative_completeness_error",
        "reward_completeness_error",
        "degenerate_rate",
    )
    for rules in ("plain", "libra")
} | {"accuracy"}
DRIFT = {f"{metric}/{rules}" for metric in DRIFT_METRICS for rules in ("plain", "libra")}


def fit(tmp_path, callbacks, **kwargs):
    L.seed_everything(7)
    module = Classifier()
    run = trainer(tmp_path, callbacks, **kwargs)
    run.fit(module, loader(shuffle=True), loader())
    return run, module


def test_every_value_is_logged_and_can_be_monitored(tmp_path):
    checkpoint = ModelCheckpoint(monitor="audit/segmentation_ap/libra", mode="max")
    stopping = EarlyStopping(monitor="audit/srg/libra", mode="max", patience=5)
    callback = audit()
    run, _ = fit(tmp_path, [callback, checkpoint, stopping])
    assert {k.removeprefix("audit/") for k in run.callback_metrics if "audit" in k} == (
        KEYS | DRIFT | {"seconds"}
    )
    assert Path(checkpoint.best_model_path).is_file()
    assert len(callback.history) == 2
    assert float(checkpoint.best_model_score) == pytest.approx(
        max(record.values["segmentation_ap/libra"] for record in callback.history)
    )
    assert callback.history[0].values["relative_completeness_error/libra"] < 1e-4
    assert callback.history[0].values["relative_completeness_error/plain"] > 1e-2


def test_tensorboard_gets_scalars_panels_and_charts(tmp_path):
    run, _ = fit(tmp_path, [audit()])
    events = EventAccumulator(run.logger.log_dir)
    events.Reload()
    tags = events.Tags()
    assert {f"audit/{key}" for key in KEYS} <= set(tags["scalars"])
    names = [f"image_{i:03d}/class_{data()[i][1]}" for i in (0, 1)]
    strips = [name.replace("image", "strip") for name in names]
    extremes = ["best_segmentation_ap", "worst_segmentation_ap"]
    expected = ["curves", *names, *strips, *extremes]
    assert sorted(tags["images"]) == sorted(f"audit/{name}" for name in expected)
    for name in ("curves", names[0]):
        assert [image.step for image in events.Images(f"audit/{name}")] == [5, 11]
    assert [image.step for image in events.Images(f"audit/{strips[0]}")] == [12]
    assert [scalar.step for scalar in events.Scalars("audit/srg/libra")] == [5, 11]
    assert "custom_scalars__config__" in tags["tensors"]
    for rules in ("plain", "libra"):
        own = EventAccumulator(f"{run.logger.log_dir}/{rules}").Reload()
        assert "audit/srg" in own.Tags()["scalars"]
        expected = [scalar.value for scalar in events.Scalars(f"audit/srg/{rules}")]
        assert [scalar.value for scalar in own.Scalars("audit/srg")] == pytest.approx(expected)


def test_validate_and_test_run_in_inference_mode_and_repeat_exactly(tmp_path):
    callback = audit()
    run, module = fit(tmp_path, [callback])
    first, second = (run.validate(module, loader(), verbose=False)[0] for _ in range(2))
    assert [(r.weights, r.epoch) for r in callback.history[-2:]] == [("current", 1)] * 2
    assert first.pop("audit/seconds") > 0
    assert second.pop("audit/seconds") > 0
    assert first == second
    assert {f"audit/{key}" for key in KEYS} <= set(first)
    assert callback.history[-1].values == callback.history[-2].values
    tested = run.test(module, loader(), verbose=False)[0]
    assert {f"test_audit/{key}": first[f"audit/{key}"] for key in KEYS}.items() <= tested.items()


@pytest.mark.parametrize("weights_only", [False, True])
def test_a_checkpoint_is_validated_as_what_it_is(tmp_path, capsys, weights_only):
    checkpoint = ModelCheckpoint(
        tmp_path, "best", monitor="audit/srg/libra", save_weights_only=weights_only
    )
    _, module = fit(tmp_path, [audit(), checkpoint], max_epochs=3)
    callback = audit(print_summary=True)
    run = trainer(tmp_path / "again", [callback])
    capsys.readouterr()
    path = tmp_path / "best.ckpt"
    run.validate(module, loader(), ckpt_path=path)
    epoch = None if weights_only else torch.load(path, weights_only=True)["epoch"]
    record = callback.history[-1]
    assert (record.weights, record.epoch) == ("best.ckpt", epoch)
    assert not [key for key in record.values if "drift" in key]
    printed = capsys.readouterr().out
    named = "best.ckpt" if weights_only else f"best.ckpt, epoch {epoch}"
    assert f"Explanation audit of 12 images ({named}, drop_tokens)" in printed
    assert printed.count("audit/srg/libra") == 1
    assert "segmentation ap" not in printed


def test_audits_are_rare_on_request_and_monitors_keep_their_key(tmp_path):
    callback = audit(every_n_epochs=2)
    checkpoint = ModelCheckpoint(monitor="audit/srg/libra", save_top_k=-1)
    run, _ = fit(tmp_path, [callback, checkpoint], max_epochs=5)
    assert [record.epoch for record in callback.history] == [0, 2, 4]
    assert len(checkpoint.best_k_models) == 5
    events = EventAccumulator(run.logger.log_dir)
    events.Reload()
    assert len(events.Scalars("audit/srg/libra")) == 3


def test_the_probe_set_is_the_same_at_every_audit_even_if_the_loader_shuffles(
    tmp_path, monkeypatch
):
    seen = []
    result = AuditRun.add

    def spy(self, groups):
        seen.append(groups)
        return result(self, groups)

    monkeypatch.setattr(AuditRun, "add", spy)
    L.seed_everything(0)
    run = trainer(tmp_path, [audit()], num_sanity_val_steps=0)
    run.fit(Classifier(), loader(), loader(shuffle=True))
    ((first,), (second,)) = seen
    assert len(first.samples) == len(first.ids) == 12
    assert torch.equal(first.samples.images, second.samples.images)
    assert first.samples.masks.dtype == torch.bool


def test_a_probe_larger_than_the_data_takes_all_of_it(tmp_path):
    callback = audit(max_samples=1000, metrics=["completeness_error"])
    fit(tmp_path, [callback], max_epochs=1)
    assert callback.history[0].samples == 48


def test_without_masks_nothing_is_compared_with_them(tmp_path):
    callback = audit(unpack=first_two)
    run, _ = fit(tmp_path, [callback], max_epochs=1)
    logged = {k for k in run.callback_metrics if k.startswith("audit/")}
    assert len(logged - {"audit/seconds"}) == len(KEYS) - 4
    assert not any(math.isnan(float(run.callback_metrics[k])) for k in logged)


def first_two(batch):
    return Samples(batch[0], batch[1])


class WithoutForward(Classifier):
    forward = L.LightningModule.forward

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))


def test_a_module_without_forward_is_explained_through_its_backbone(tmp_path):
    callback, module = audit(), WithoutForward()
    trainer(tmp_path, [callback], logger=False).validate(module, loader(), verbose=False)
    images, _, masks = data()[:12]
    maps = explain(module.net, images, batch_size=8).heatmap((32, 32))
    values = callback.history[0].values
    expected = float(SegmentationAP()(maps, masks))
    assert values["segmentation_ap/libra"] == pytest.approx(expected, rel=1e-4)
    assert values["relative_completeness_error/libra"] < 1e-4


def test_a_module_that_computes_nothing_in_validation_is_explained_through_its_forward(tmp_path):
    class Idle(Classifier):
        def validation_step(self, batch, batch_idx):
            pass

    torch.manual_seed(0)
    module = Idle()
    idle, busy = audit(), audit()
    trainer(tmp_path, [idle], logger=False).validate(module, loader(), verbose=False)
    module.validation_step = super(Idle, module).validation_step
    trainer(tmp_path, [busy], logger=False).validate(module, loader(), verbose=False)
    assert idle.history[0].values == busy.history[0].values


def test_other_loggers_get_the_numbers(tmp_path):
    run, _ = fit(tmp_path, [audit()], logger=CSVLogger(tmp_path))
    assert "audit/srg/libra" in (Path(run.logger.log_dir) / "metrics.csv").read_text()


@pytest.mark.parametrize("csv", [False, True])
def test_without_a_logger_there_are_files(tmp_path, csv):
    run, _ = fit(tmp_path, [audit()], logger=CSVLogger(tmp_path) if csv else False)
    folder = Path(run.logger.log_dir) if csv else tmp_path
    for i in range(2):
        found = sorted(p.name for p in (folder / f"audit/image_{i:03d}").rglob("*.png"))
        assert found == ["00000005.png", "00000011.png"]


def test_the_audit_writes_pictures_texts_and_its_history(tmp_path):
    callback = audit(num_images=2)
    run = trainer(tmp_path, [callback], logger=CSVLogger(tmp_path), max_epochs=2)
    run.fit(Classifier(), loader(), loader())
    folder = Path(run.logger.log_dir) / "audit"
    pictures = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    classes = [f"{i:03d}/class_{data()[i][1]}" for i in (0, 1)]
    assert pictures == [
        *(f"best_segmentation_ap/{step:08d}.png" for step in (5, 11)),
        *(f"curves/{step:08d}.png" for step in (5, 11)),
        *(f"image_{name}/{step:08d}.png" for name in classes for step in (5, 11)),
        *(f"strip_{name}/00000012.png" for name in classes),
        *(f"worst_segmentation_ap/{step:08d}.png" for step in (5, 11)),
    ]
    for name in ("classes", "best_and_worst"):
        assert len(list((folder / name).glob("*.md"))) == 2
    with (folder / "scores" / "00000011.csv").open() as file:
        images = list(csv.DictReader(file))
    assert len(images) == 12
    for key in ("srg/libra", "segmentation_ap/plain"):
        mean = sum(float(row[key]) for row in images) / 12
        assert mean == pytest.approx(callback.history[-1].values[key])
    assert (folder / "coverage" / "libra" / "00000000.md").read_text().startswith("|")
    with (folder / "history" / "00000012.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 1]
    for row, record in zip(rows, callback.history, strict=True):
        assert float(row["srg/libra"]) == record.values["srg/libra"]


def test_two_audits_share_a_trainer_and_resume(tmp_path):
    def pair():
        return [audit(), audit(name="label_audit", target="label", metrics=["srg"])]

    first, resumed = pair(), pair()
    run, module = fit(tmp_path, first)
    assert {"audit/srg/libra", "label_audit/srg/libra"} <= set(run.callback_metrics)
    run.save_checkpoint(tmp_path / "two.ckpt")
    further = trainer(tmp_path, resumed, max_epochs=3)
    further.fit(module, loader(), loader(), ckpt_path=tmp_path / "two.ckpt")
    for before, after in zip(first, resumed, strict=True):
        assert [record.epoch for record in after.history] == [0, 1, 2]
        assert after.history[:2] == before.history
    keys = [{key.partition("/")[0] for key in c.history[2].values} for c in resumed]
    assert "segmentation_ap" in keys[0]
    assert keys[1] == {"srg", "accuracy"}


@pytest.mark.parametrize(
    ("kwargs", "samples"),
    [({"fast_dev_run": True}, [8]), ({"limit_val_batches": 1}, [8, 8])],
)
def test_short_runs_audit_the_images_that_they_show(tmp_path, kwargs, samples):
    callback = audit()
    fit(tmp_path, [callback], **kwargs)
    assert [record.samples for record in callback.history] == samples
    assert {key for record in callback.history for key in record.values} >= KEYS


def test_the_table_of_audits_is_printed(tmp_path, capsys):
    fit(tmp_path, [audit(print_summary=True)])
    printed = capsys.readouterr().out
    assert "Explanation audit" in printed
    assert "segmentation ap" in printed
    assert "epoch 1" in printed


def test_a_validation_prints_its_own_audit_in_the_first_process(tmp_path, capsys):
    callback = audit(print_summary=True, metrics=["completeness_error"])
    run = trainer(tmp_path, [callback], logger=False)
    for _ in range(2):
        capsys.readouterr()
        run.validate(Classifier(), loader(), verbose=False)
        assert capsys.readouterr().out.count("weights as given") == 1
    assert len(callback.history) == 2
    other = SimpleNamespace(fn="test")
    callback.on_test_end(SimpleNamespace(is_global_zero=False, fast_dev_run=False, state=other))
    assert capsys.readouterr().out == ""


def test_the_callback_can_be_pickled_for_spawned_processes():
    callback = pickle.loads(pickle.dumps(audit(method="genatt", rules=["libra", "attn_lrp"])))
    assert callback.state_dict()["settings"]["rules"] == ["libra", "attn_lrp"]


def test_a_path_to_the_backbone_is_taken(tmp_path):
    class Two(Classifier):
        def __init__(self):
            super().__init__()
            self.teacher = Classifier().net

    module = Two()
    student, teacher = audit(backbone="net"), audit(backbone="teacher", on_error="warn")
    run = trainer(tmp_path, [student], logger=False)
    run.validate(module, loader(), verbose=False)
    images, _, masks = data()[:12]
    maps = [
        explain(module, images, rules=rules, backbone="net", batch_size=8)
        for rules in ("plain", "libra")
    ]
    for found in maps:
        expected = SegmentationAP()(found.heatmap((32, 32)), masks)
        key = f"segmentation_ap/{found.rules.name}"
        assert student.history[0].values[key] == pytest.approx(float(expected), rel=1e-4)
    with pytest.warns(UserWarning, match="No blocks were found"):
        trainer(tmp_path, [teacher], logger=False).validate(module, loader(), verbose=False)
    assert teacher.history == []
