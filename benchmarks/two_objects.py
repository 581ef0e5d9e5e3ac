"""Draws the first scenes with two objects, each asked for one of them and for the other.

    python benchmarks/two_objects.py demo logs/demo/version_0/checkpoints/latest.ckpt
    python benchmarks/two_objects.py photographs logs/photographs/version_0/checkpoints/EPOCH.ckpt

Writes `two_objects.png`. Parts of the first may be passed on; those of the second are under the
GPL. A model of the second kind that has learned the two cut-outs in `assets`, too, can be shown in
scenes that may be passed on:

    cp benchmarks/assets/raccoon.png data/photographs/objects/mammal/Raccoon.png
    cp benchmarks/assets/flower.png data/photographs/objects/flower/Flower.png
    libragrad fit --config configs/photographs.yaml
    python benchmarks/two_objects.py free logs/photographs/version_0/checkpoints/EPOCH.ckpt

(Capital letters come first, so that they are among the objects.)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

import libragrad_lightning  # noqa: F401  (repairs torchvision before anything imports it)
from free_scenes import CUTOUTS, FreeScenes
from libragrad_lightning.data import AskedTwice, ObjectsDataModule
from libragrad_lightning.data.scenes.composition import Composition, Variation
from libragrad_lightning.heatmaps import explanation_panel, stacked, to_display_range, to_pil
from recipes import RECIPES, Scenes, Subject, batch_of, opened, photograph_scenes


def free_scenes(checkpoint: Path) -> Scenes:
    """Return what a model is shown in whose scenes may be passed on."""
    data = ObjectsDataModule.load_from_checkpoint(checkpoint)
    of = data.hparams
    variation = Variation(of["rotation"], of["brightness"])
    composed = Composition(of["image_size"], 2, of["pair_size"], variation=variation)
    labels = [data.class_names.index(name.capitalize()) for name in CUTOUTS]
    free = AskedTwice(FreeScenes(composed, labels, data.image_mean, data.image_std))
    return replace(photograph_scenes(checkpoint), pairs=free)


def figure(scenes: Scenes, subject: Subject, shown: Sequence[int], column_size: int) -> Tensor:
    """Return a figure with a line for each scene, uint8 `[3, H, W]`.

    Args:
        scenes: Those of the recipe.
        subject: The model.
        shown: Numbers of the scenes.
        column_size: The longer side of each picture, pixels.
    """
    batch = batch_of(scenes.pairs, [2 * n + asked for n in shown for asked in (0, 1)])
    names, found = scenes.names, subject.explained(batch["image"], batch["label"])
    lines = []
    for row in range(0, len(batch["image"]), 2):
        maps = {
            f"{names[int(batch['label'][question])]}?\n{rules}": e.attribution[question]
            for question in (row, row + 1)
            for rules, e in found.items()
        }
        image = to_display_range(batch["image"][row : row + 1], scenes.mean, scenes.std)[0]
        lines.append(explanation_panel(image, maps, column_size=column_size))
    return stacked(lines)


_SHOWN = {**RECIPES, "free": free_scenes}


def main() -> None:
    """Draw the figure that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=_SHOWN)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--scenes", type=int, default=4, help="how many are drawn")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--size", type=int, default=160, help="side of a picture in pixels")
    parser.add_argument("--out", type=Path, default=Path("two_objects.png"))
    given = parser.parse_args()
    scenes = _SHOWN[given.recipe](given.checkpoint)
    subject = opened(scenes, given.checkpoint)
    shown = range(given.first, given.first + given.scenes)
    to_pil(figure(scenes, subject, shown, given.size)).save(given.out)


if __name__ == "__main__":
    main()
