"""Measures what a model of `configs/clip.yaml` finds of kinds in colors that it never saw them in.

python benchmarks/unseen_pairs.py logs/clip/version_0/checkpoints/latest.ckpt
"""

from __future__ import annotations

import sys
from pathlib import Path

from libragrad_lightning.data.batches import normalize
from libragrad_lightning.demo import TextMatcher
from libragrad_lightning.demo.compositing import load_backgrounds
from libragrad_lightning.demo.phrases import ANY, COLORS, KINDS, Texts, Things, class_texts
from libragrad_lightning.demo.scenes import HELD_OUT, compose_scenes, draw_things, load_cut_outs
from libragrad_lightning.demo.two_garments import SCENE_MEAN, SCENE_STD

# isort: split
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_DRAWN, _KEPT = 6000, 600
_AT_ONCE = 64
_BRIGHTNESS = 0.4
_CLASSES = class_texts()
_KINDS = Texts(np.array([[(kind, ANY, ANY), (ANY,) * 3] for kind in range(len(KINDS))]))


def scenes() -> tuple[Things, Things]:
    """Return the garments of scenes of validation with a pair never seen, and of others."""
    things = draw_things(_DRAWN, held_out=True, rng=np.random.default_rng(11))
    unseen = np.array([any((k, c) in HELD_OUT for k, c, _ in scene) for scene in things])
    return things[unseen][:_KEPT], things[~unseen][:_KEPT]


@torch.no_grad()
def embedded_images(matcher: TextMatcher, things: Things) -> Tensor:
    """Return the embeddings of length one of scenes, `[N, D]`."""
    cut_outs, backgrounds = load_cut_outs("val", 2000), load_backgrounds("val")
    rng = np.random.default_rng(3)
    pictures = compose_scenes(things, cut_outs, backgrounds, _BRIGHTNESS, 0.0, rng).images
    images = normalize(pictures, SCENE_MEAN, SCENE_STD)
    found = [matcher.model.encode_image(part) for part in images.split(_AT_ONCE)]
    return F.normalize(torch.cat(found), dim=-1)


@torch.no_grad()
def embedded_texts(matcher: TextMatcher, texts: Texts) -> Tensor:
    """Return the embeddings of length one of texts, `[T, D]`."""
    return F.normalize(matcher.model.encode_text(matcher.tokenizer(texts.words())), dim=-1)


def share_found(images: Tensor, texts: Tensor, true: Tensor) -> float:
    """Return of how many images all true texts are nearer than all others."""
    scores = images @ texts.T
    lowest = scores.masked_fill(~true, float("inf")).amin(1)
    return float((lowest > scores.masked_fill(true, float("-inf")).amax(1)).float().mean())


def of_images(images: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
    """Return embeddings of prompts, of the never seen ones by their images instead of the text.

    That is the mean of the images with the thing, each without the part of the text of the other.
    """
    found = texts.clone()
    for kind, color in HELD_OUT:
        number = kind * len(COLORS) + color
        rows = (labels == number).any(1)
        other = labels[rows].sum(1) - number
        found[number] = F.normalize((images[rows] - 0.5 * texts[other]).mean(0), dim=0)
    return found


def main(checkpoint: Path) -> None:
    """Print the shares."""
    matcher = TextMatcher.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    prompts, kinds = (embedded_texts(matcher, texts) for texts in (_CLASSES, _KINDS))
    for name, things in zip(("never seen", "others"), scenes(), strict=True):
        images = embedded_images(matcher, things)
        true = torch.from_numpy(_CLASSES.true_of(things))
        shown = torch.from_numpy(_KINDS.true_of(things))
        print(f"{name}: found {share_found(images, prompts, true):.2f}", end=", ")
        print(f"kinds {share_found(images, kinds, shown):.2f}", end="")
        if name == "never seen":
            labels = torch.from_numpy(things[..., 0] * len(COLORS) + things[..., 1])
            half = len(images) // 2
            better = of_images(images[:half], prompts, labels[:half])
            print(f", by images {share_found(images[half:], better, true[half:]):.2f}", end="")
        print()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
