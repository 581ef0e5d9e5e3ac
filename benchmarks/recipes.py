"""Trains a recipe with several seeds, and measures what plain gradients and LibraGrad show of it.

    python benchmarks/recipes.py demo
    python benchmarks/recipes.py photographs

The second needs the photographs and weights that `configs/photographs.yaml` names. Every seed is a
`libragrad fit` of the configuration without callbacks, which would not change the weights. What has
been done is kept under logs/recipes, and the same command goes on after an interruption. Prints a
table: for each seed, and for all of them together with a 95 % bootstrap interval over images.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

import libragrad_lightning  # noqa: F401  (repairs torchvision before anything imports it)
from libragrad_lightning import explain
from libragrad_lightning.attribution import Explanation
from libragrad_lightning.data import AskedTwice, ObjectsDataModule
from libragrad_lightning.demo import GarmentPairs, ImageClassifier, ScatteredGarments
from libragrad_lightning.metrics.functional import (
    bootstrap_interval,
    pointing_hits,
    segmentation_average_precision,
    symmetric_relevance_gain,
    target_discrimination,
    target_share,
)
from libragrad_lightning.models import TokenModel, explanation_state, read_token_model
from libragrad_lightning.perturbation import deletion_logits

RULES = ("plain", "libra")
_CONFIGS = Path(__file__).parents[1] / "configs"
_AT_ONCE = 32

Values: TypeAlias = dict[str, Tensor]
"""By ``quantity`` or ``quantity/rules``: a number for each image, NaN where there is none."""


@dataclass(frozen=True)
class Scenes:
    """What a recipe is measured on.

    Attributes:
        all: Images, to measure the accuracy; the first of them are explained.
        pairs: Questions about scenes with two objects, the two of a scene together.
        target: Which class of the first ones is explained, ``predicted`` or ``label``.
        names: Names of the classes.
        mean: Subtracted from each channel of the images, as a share of the pixel range.
        std: Each channel is divided by it, the same share.
        near: A quarter of a patch, pixels: how far beside its object a maximum is near it.
        by_deletion: Whether maps are measured by deletion, too.
    """

    all: Dataset[dict[str, Tensor]]
    pairs: Dataset[dict[str, Tensor]]
    target: str
    names: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    near: int
    by_deletion: bool


@dataclass(frozen=True)
class Subject:
    """A classifier that is explained.

    Attributes:
        classifier: The classifier, in evaluation mode.
        model: What was read of it.
    """

    classifier: ImageClassifier
    model: TokenModel

    def explained(self, images: Tensor, target: str | Tensor) -> dict[str, Explanation]:
        """Explain images under every rule set."""
        return {
            rules: explain(
                self.classifier,
                images,
                rules=rules,
                target=target,  # type: ignore[arg-type]
                sums=(),
                progress=False,
                reading=self.model,
            )
            for rules in RULES
        }


def demo_scenes(checkpoint: Path) -> Scenes:
    """Return the demo's validation images."""
    data = ScatteredGarments.load_from_checkpoint(checkpoint)
    pairs = AskedTwice(GarmentPairs("val", 100))
    looks = (data.class_names, data.image_mean, data.image_std)
    return Scenes(data.build("val"), pairs, "predicted", *looks, near=1, by_deletion=True)


def photograph_scenes(checkpoint: Path) -> Scenes:
    """Return scenes on held-out backgrounds that training never looked at, not even to stop."""
    data = ObjectsDataModule.load_from_checkpoint(checkpoint, num_test=400, num_pairs=64)
    looks = (data.class_names, data.image_mean, data.image_std)
    return Scenes(
        data.build("test"), AskedTwice(data.pairs()), "label", *looks, near=3, by_deletion=False
    )


RECIPES: Mapping[str, Callable[[Path], Scenes]] = {
    "demo": demo_scenes,
    "photographs": photograph_scenes,
}


def trained(name: str, seed: int, folder: Path, overrides: Sequence[str]) -> Path:
    """Return the checkpoint of a seed, trained if it is not there.

    Args:
        name: Name of the configuration.
        seed: Of the weights, of what is drawn in training, and of its data.
        folder: Where it is kept.
        overrides: Further arguments of the command.
    """
    checkpoint = folder / "last.ckpt"
    if not checkpoint.exists():
        command = [sys.executable, "-m", "libragrad_lightning", "fit"]
        command += ["--config", str(_CONFIGS / f"{name}.yaml"), "--trainer.callbacks=null"]
        command += [f"--seed_everything={seed}", f"--data.init_args.seed={seed}"]
        logger = "--trainer.logger.init_args"
        command += [f"{logger}.save_dir={folder.parent}", f"{logger}.name={folder.name}"]
        command += [f"{logger}.version=fit"]
        command += ["--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=0"]
        subprocess.run([*command, *overrides], check=True)
        found = sorted((folder / "fit" / "checkpoints").glob("*.ckpt"))
        found[-1].replace(checkpoint)
    return checkpoint


def opened(scenes: Scenes, checkpoint: Path) -> Subject:
    """Return a trained classifier, ready to be explained.

    Args:
        scenes: What it is shown.
        checkpoint: The weights.
    """
    classifier = ImageClassifier.load_from_checkpoint(
        checkpoint, map_location="cpu", pretrained=False
    ).eval()
    image = scenes.all[0]["image"][None]
    return Subject(classifier, read_token_model(classifier, image))


def measured(name: str, checkpoint: Path, count: int) -> Values:
    """Return what is measured on a checkpoint, and keep it beside it.

    Args:
        name: Name of the recipe.
        checkpoint: The weights.
        count: How many images are explained.
    """
    file = checkpoint.with_name(f"values_{count}.pt")
    if not file.exists():
        scenes = RECIPES[name](checkpoint)
        subject = opened(scenes, checkpoint)
        values = {"accuracy": correctness(subject.classifier, scenes.all)}
        values |= of_images(subject, scenes, count)
        values |= of_pairs(subject, scenes.pairs)
        torch.save(values, file)
    found: Values = torch.load(file, weights_only=True)
    return found


@torch.no_grad()
def correctness(classifier: ImageClassifier, images: Dataset[dict[str, Tensor]]) -> Tensor:
    """Return for each image whether the most probable class is its label, 0 or 1."""
    batches = DataLoader(images, batch_size=200)
    right = [classifier(b["image"]).argmax(1) == b["label"] for b in tqdm(batches, "Classifying")]
    return torch.cat(right).double()


def of_images(subject: Subject, scenes: Scenes, count: int) -> Values:
    """Measure the maps of the first images on their masks, and by deletion."""
    parts = []
    for start in tqdm(range(0, count, _AT_ONCE), "Explaining images"):
        batch = batch_of(scenes.all, range(start, min(start + _AT_ONCE, count)))
        images, masks, labels = batch["image"], batch["mask"], batch["label"]
        found = subject.explained(images, labels if scenes.target == "label" else "predicted")
        values: Values = {}
        for rules, e in found.items():
            heat = e.heatmap((masks.shape[-2], masks.shape[-1]))
            right = e.logits.argmax(1) == labels
            values[f"segmentation AP/{rules}"] = segmentation_average_precision(heat, masks)
            for where, tolerance in (("on", 0), ("near", scenes.near)):
                hits = pointing_hits(heat, masks, tolerance=tolerance)
                name = f"maximum {where} the object, where right/{rules}"
                values[name] = hits.where(right, torch.nan)
        if scenes.by_deletion:
            values |= gains(subject, images, found)
        parts.append(values)
    return _joined(parts)


def gains(subject: Subject, images: Tensor, found: Mapping[str, Explanation]) -> Values:
    """Measure what deletion of patches does, in the order of the maps and against it."""
    maps = {rules: e.attribution for rules, e in found.items()}
    with explanation_state(subject.classifier):
        curves = deletion_logits(subject.model, images, maps)
    values: Values = {}
    for rules, e in found.items():
        most, least = curves[rules].most_influential_first, curves[rules].least_influential_first
        gain = symmetric_relevance_gain(most, least, e.target).mean(1)
        values[f"symmetric relevance gain/{rules}"] = gain
    return values


def of_pairs(subject: Subject, pairs: Dataset[dict[str, Tensor]]) -> Values:
    """Measure whether maps of two classes tell their objects apart; a value for each scene."""
    parts = []
    length = len(pairs)  # type: ignore[arg-type]
    for start in tqdm(range(0, length, _AT_ONCE), "Explaining pairs"):
        batch = batch_of(pairs, range(start, min(start + _AT_ONCE, length)))
        mask, other = batch["mask"], batch["other_mask"]
        values: Values = {}
        for rules, e in subject.explained(batch["image"], batch["label"]).items():
            heat = e.heatmap((mask.shape[-2], mask.shape[-1]))
            share = target_share(heat, mask, other)
            told = target_discrimination(heat, mask, other)
            values[f"share on the named one of two/{rules}"] = share.unflatten(0, (-1, 2)).mean(1)
            values[f"class discrimination/{rules}"] = told.unflatten(0, (-1, 2)).mean(1)
        parts.append(values)
    return _joined(parts)


def table(by_seed: Mapping[int, Values]) -> str:
    """Return the table of several seeds, in Markdown."""
    seeds = sorted(by_seed)
    lines = [f"| | {' | '.join(f'seed {s}' for s in seeds)} | all |", "|---" * (len(seeds) + 2)]
    lines[1] += "|"
    for quantity in dict.fromkeys(key.partition("/")[0] for key in by_seed[seeds[0]]):
        names = [k for k in by_seed[seeds[0]] if k.partition("/")[0] == quantity]
        cells = [" → ".join(f"{by_seed[s][name].nanmean():.3f}" for name in names) for s in seeds]
        together = " → ".join(_pooled([by_seed[s][name] for s in seeds]) for name in names)
        lines.append(f"| {quantity} | {' | '.join(cells)} | {together} |")
    return "\n".join(lines)


def _pooled(values: Sequence[Tensor]) -> str:
    """Return the mean over seeds with its interval over images, the same in every seed."""
    groups = torch.arange(len(values[0])).repeat(len(values))
    found = bootstrap_interval(torch.cat(list(values)), groups=groups)
    return f"{found.value:.3f} ({found.lower:.3f} to {found.upper:.3f})"


def batch_of(images: Dataset[dict[str, Tensor]], rows: Sequence[int]) -> dict[str, Tensor]:
    """Return some images of a data set as a batch."""
    batch: dict[str, Tensor] = default_collate([images[i] for i in rows])
    return batch


def _joined(parts: Sequence[Values]) -> Values:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("logs/recipes"))
    parser.add_argument("--images", type=int, default=128, help="how many are explained")
    parsed, overrides = parser.parse_known_args()
    by_seed = {}
    for seed in parsed.seeds:
        folder = parsed.work / parsed.recipe / f"seed_{seed}"
        checkpoint = trained(parsed.recipe, seed, folder, overrides)
        by_seed[seed] = measured(parsed.recipe, checkpoint, parsed.images)
        print(table(by_seed), flush=True)


if __name__ == "__main__":
    main()
