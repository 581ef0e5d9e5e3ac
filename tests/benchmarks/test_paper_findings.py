"""The study on a small model: resumable, in agreement with its parts, and readable."""

import csv
import re
import subprocess
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

import findings_work
import free_scenes as free
import paper_findings
from findings_figures import classes_figure, methods_figure
from findings_page import Found, page
from findings_pictured import (
    free_scenes,
    free_scenes_of_two,
    once_for_each_class,
    scenes_of_each_class,
    scenes_of_two,
)
from findings_report import Measured, comparison, tally, write_csv
from findings_rows import ABLATIONS, RULE_FREE, Row
from findings_work import (
    QUESTIONS,
    Chunk,
    Plan,
    Subject,
    answer,
    answers,
    chunks,
    joined,
    objects,
)
from libragrad_lightning import explain
from libragrad_lightning.attribution import METHODS
from libragrad_lightning.data import CutoutDataModule
from libragrad_lightning.demo import ImageClassifier

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
PLAN = Plan(images=6, pairs=4, steps=2, chunk=4)


def scene_parts(root: Path) -> CutoutDataModule:
    """Make cut-outs of three colors and gray backgrounds, and return their data module."""
    for name, color in {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}.items():
        (root / "objects" / name).mkdir(parents=True)
        for number in range(4):
            cutout = np.zeros((20, 20, 4), np.uint8)
            cutout[3 : 12 + number, 3:17] = (*color, 255)
            Image.fromarray(cutout).save(root / "objects" / name / f"{number}.png")
    (root / "backgrounds").mkdir()
    for number in range(4):
        Image.new("RGB", (64, 64), (40 * number,) * 3).save(root / f"backgrounds/{number}.png")
    return CutoutDataModule(
        str(root / "objects"), str(root / "backgrounds"), image_size=32, num_train=32, batch_size=8
    )


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("study")
    trainer = L.Trainer(
        default_root_dir=root, max_epochs=1, limit_val_batches=0, logger=False, accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(ImageClassifier(model_kwargs=VIT, num_classes=3), scene_parts(root))
    trainer.save_checkpoint(root / "classifier.ckpt")
    return Subject("small", "A small ViT", root / "classifier.ckpt", "tokens")


@pytest.fixture(scope="module")
def found(subject):
    folder = subject.checkpoint.parent / "work"
    todo = chunks([subject], PLAN)
    for chunk in todo:
        answer(chunk, folder)
    parts = list(answers(todo, folder))
    groups = {"faithfulness": objects(subject, PLAN.images)}
    return {
        question: Measured(
            joined([values for chunk, values in parts if chunk.question == question]),
            groups.get(question),
        )
        for question in QUESTIONS
    }


def test_every_method_is_measured_on_every_scene(found):
    assert {row.split("/")[0] for row in found["faithfulness"].values} == set(METHODS)
    for question, count in {"faithfulness": 6, "completeness": 6, "discrimination": 4}.items():
        for of in found[question].values.values():
            assert {len(values) for values in of.values()} == {count}
    for name in set(METHODS) - RULE_FREE:
        assert str(Row(name, "libra")) in found["discrimination"].values
    assert {f"fullgrad_plus/{name}" for name in ABLATIONS} < set(found["faithfulness"].values)


def test_completeness_is_that_of_explain(subject, found):
    measured = found["completeness"].values
    images = torch.stack([subject.data(num_val=6).build("val")[i]["image"] for i in range(6)])
    for rules in ("plain", "libra"):
        e = explain(subject.classifier(), images, method="fullgrad", rules=rules, reward="logit")
        error = measured[f"fullgrad/{rules}"]["error"]
        torch.testing.assert_close(error, e.residuals[0].abs(), atol=2e-6, rtol=1e-4)
    assert measured["fullgrad/libra"]["relative error, worst level"].max() < 1e-4
    assert measured["fullgrad/plain"]["relative error"].min() > 1e-3
    plain = measured["integrated_gradients/plain"]["error"]
    assert plain.mean() < measured["input_x_gradient/plain"]["error"].mean()


def test_methods_without_classes_do_not_discriminate(found):
    for method in ("raw_attention", "attention_rollout"):
        values = found["discrimination"].values[f"{method}/plain"]["class discrimination"]
        assert values.abs().max() < 1e-12


def test_an_interrupted_run_goes_on(subject, tmp_path, monkeypatch):
    todo = [Chunk(subject, PLAN, "completeness", start) for start in (0, 4)]
    answer(todo[0], tmp_path)
    asked = []

    class Pool:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, function, chunk, folder):
            asked.append(chunk)
            future = Future()
            future.set_result(function(chunk, folder))
            return future

    monkeypatch.setattr(findings_work, "ProcessPoolExecutor", Pool)
    findings_work.answer_all(todo, tmp_path, workers=1)
    assert asked == todo[1:]
    assert all(chunk.file(tmp_path).exists() for chunk in todo)


def test_a_longer_run_does_not_take_a_part_of_a_chunk_for_the_whole(subject, tmp_path):
    longer = replace(PLAN, images=8)
    short, whole = (Chunk(subject, plan, "completeness", 4) for plan in (PLAN, longer))
    answer(short, tmp_path)
    assert not whole.file(tmp_path).exists()
    assert chunks([subject], longer)[0].file(tmp_path) == chunks([subject], PLAN)[0].file(tmp_path)


def test_an_interrupted_training_begins_anew(tmp_path, monkeypatch):
    subject = Subject("small", "A small ViT", tmp_path / "small" / "classifier.ckpt", "tokens")
    fit = tmp_path / "small" / "fit" / "checkpoints"
    fit.mkdir(parents=True)
    (fit / "epoch=0.ckpt").write_text("interrupted")
    (tmp_path / "small" / "completeness.pt").write_text("of other weights")

    def run(command, check):
        assert f"--trainer.logger.init_args.save_dir={tmp_path}" in command
        assert check
        fit.mkdir(parents=True)
        (fit / "epoch=2.ckpt").write_text("finished")

    monkeypatch.setattr(subprocess, "run", run)
    recipe = paper_findings.Recipe(("unseen_objects.yaml",), "some_weights")
    paper_findings.fine_tune(subject, recipe, tmp_path, tmp_path)
    assert subject.checkpoint.read_text() == "finished"
    assert not list((tmp_path / "small").glob("*.pt"))


def test_tables_say_what_was_measured(subject, found, tmp_path):
    text = page([Found("small", subject.title, *(found[q] for q in QUESTIONS))], PLAN)
    changed = comparison(found["faithfulness"], "fullgrad_plus", "SRG")
    cell = f"{100 * changed.plain.value:.1f} → {100 * changed.libra.value:.1f}"
    (line,) = [s for s in text.splitlines() if s.startswith("| `fullgrad_plus` |") and cell in s]
    assert line.count("→") == 3
    assert "{" not in text
    assert re.search(r"!\[.*\]\(paper_findings_small_methods.jpg\)", text)
    write_csv(tmp_path / "all.csv", {("small", q): found[q] for q in QUESTIONS})
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    assert len(rows) == sum(len(of) for q in QUESTIONS for of in found[q].values.values())
    (srg,) = [
        r for r in rows
        if (r["method"], r["rules"], r["quantity"]) == ("fullgrad_plus", "libra", "SRG")
    ]  # fmt: skip
    mean = found["faithfulness"].values["fullgrad_plus/libra"]["SRG"].mean().item()
    assert float(srg["mean"]) == pytest.approx(mean, abs=1e-5)
    assert float(srg["low"]) <= mean <= float(srg["high"])


def test_the_tally_counts_only_what_is_certain():
    noise = torch.linspace(-1, 1, 40)
    values = {
        "fullgrad/plain": {"SRG": noise, "LIF AOPC": noise},
        "fullgrad/libra": {"SRG": noise + 1, "LIF AOPC": noise + 1},
        "genatt/plain": {"SRG": noise, "LIF AOPC": noise},
        "genatt/libra": {"SRG": noise.flip(0), "LIF AOPC": noise.flip(0)},
        "random/plain": {"SRG": noise, "LIF AOPC": noise},
    }
    assert "better in 1 of 2 methods, worse in 0, undecided in 1" in tally(Measured(values), "SRG")
    of_lif = tally(Measured(values), "LIF AOPC")
    assert "better in 0 of 2 methods, worse in 1 (`fullgrad`), undecided in 1" in of_lif


def test_scenes_of_one_object_belong_together(subject):
    shown = objects(subject, 40)
    data = subject.data(num_val=40).build("val")
    assert torch.equal(shown // 1000, torch.stack([data[i]["label"] for i in range(40)]))
    # Of four cut-outs of a class, one is held out.
    assert len(shown.unique()) == 3
    noise = torch.randn(40)
    values = {"fullgrad/plain": {"SRG": noise}, "fullgrad/libra": {"SRG": noise + shown.double()}}
    of_scenes, of_objects = (
        comparison(Measured(values, groups), "fullgrad", "SRG").change for groups in (None, shown)
    )
    assert of_objects.value == of_scenes.value
    assert of_objects.upper - of_objects.lower > 2 * (of_scenes.upper - of_scenes.lower)


def test_figures_have_a_line_for_each_class(subject):
    first = methods_figure(subject, scenes_of_each_class(subject, PLAN.images), PLAN.steps)
    second = classes_figure(subject, scenes_of_two(subject, PLAN.pairs, 2), PLAN.steps)
    assert first.width > 9 * 140
    assert second.height > 4 * 140
    for figure in (first, second):
        assert np.asarray(figure).std() > 10


def test_free_scenes_have_the_models_classes(subject, monkeypatch):
    data = subject.data()
    monkeypatch.setattr(data, "class_names", ("vehicle", "mammal", "flower"))
    singles, pairs = free_scenes(data), free_scenes_of_two(data, 3)
    assert singles["image"].shape == (4, 3, 32, 32)
    assert singles["label"].tolist() == [1, 1, 2, 2]
    listed = (Path(free.__file__).parent / "assets" / "README.md").read_text()
    assert all(f"`{name}.png`" in listed for name in free.CUTOUTS)
    both = once_for_each_class(pairs)
    assert both["image"].shape == (6, 3, 32, 32)
    assert torch.equal(both["image"][0], both["image"][1])
    assert both["label"][:2].tolist() == [pairs["label"][0], pairs["other_label"][0]]
    assert not (both["mask"][::2] & both["mask"][1::2]).any()
    # The flower is the more colorful one.
    for image, label, mask in zip(both["image"], both["label"], both["mask"], strict=True):
        red, blue = image[0][mask].mean(), image[2][mask].mean()
        assert (red - blue > 1) == (data.class_names[label] == "flower")
