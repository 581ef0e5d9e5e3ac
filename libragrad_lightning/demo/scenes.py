"""Compose scenes of two garments on a photograph, with the pixels of each as a mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from libragrad_lightning.data.batches import Bytes, Mask, Split
from libragrad_lightning.demo.compositing import load_garments, random_crops
from libragrad_lightning.demo.phrases import COLORS, KINDS, PLACES, Things

SCENE_SIZE = 48
"""Height and width of a scene, pixels."""

HELD_OUT = frozenset({(1, 0), (4, 3), (6, 2)})
"""Kinds in colors that no training scene shows: red pullovers, yellow sneakers and blue boots."""

_QUARTER = SCENE_SIZE // 2
_GARMENT_SIZE = 22
_CLASSES = (1, 2, 3, 5, 7, 8, 9)
"""The classes of Fashion-MNIST that `KINDS` names."""
_SHADES = np.linspace(0.25, 1.0, 32, dtype=np.float32)
"""Brightness of each gray level, as in the composites of one garment."""
_RGB = np.array(
    [
        (1.0, 0.12, 0.1),
        (0.15, 0.85, 0.2),
        (0.2, 0.35, 1.0),
        (1.0, 0.85, 0.1),
        (1.0, 0.4, 0.75),
        (1.0, 1.0, 1.0),
    ],
    np.float32,
)
"""What `COLORS` look like before each garment varies them."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CutOuts:
    """Gray garments of one split, as they are laid into scenes.

    Attributes:
        shades: Brightness times opacity, `[N, 22, 22]`, 0 to 1.
        opacity: Share of each pixel that the garment covers, `[N, 22, 22]`, 0 to 1.
        of_kind: The positions of the garments of every kind.
    """

    shades: Floats
    opacity: Floats
    of_kind: tuple[npt.NDArray[np.int64], ...]


@dataclass(frozen=True)
class Scenes:
    """Two garments each on photographs.

    Attributes:
        images: `[N, 48, 48, 3]` uint8, RGB.
        things: What is where: kind, color and place of both garments, `[N, 2, 3]` int64.
        masks: Pixels at least half covered by each garment, `[N, 2, 48, 48]` bool.
    """

    images: Bytes
    things: Things
    masks: Mask


def load_cut_outs(split: Split, count: int) -> CutOuts:
    """Read the garments of a split that are of `KINDS`, and make them small.

    Args:
        split: Which garments; no garment is in two splits.
        count: How many garments of all ten classes are read.

    Raises:
        ValueError: If the split does not hold as many.
    """
    garments = load_garments(split, count)
    chosen = np.isin(garments.labels, _CLASSES)
    levels, labels = garments.images[chosen], garments.labels[chosen]
    return CutOuts(
        _small(np.where(levels > 0, _SHADES[levels], 0)),
        _small((levels > 0).astype(np.float32)),
        tuple(np.flatnonzero(labels == label) for label in _CLASSES),
    )


def draw_things(count: int, held_out: bool, rng: np.random.Generator) -> Things:
    """Draw two different garments in two different quarters for each scene.

    Args:
        count: How many scenes.
        held_out: Whether kinds may have the colors of `HELD_OUT`.
        rng: Source of every random choice.

    Returns:
        Kind, color and place, `[count, 2, 3]` int64.
    """
    pairs = [(k, c) for k in range(len(KINDS)) for c in range(len(COLORS))]
    allowed = np.array([pair for pair in pairs if held_out or pair not in HELD_OUT])
    first = rng.integers(len(allowed), size=count)
    second = (first + rng.integers(1, len(allowed), size=count)) % len(allowed)
    quarters = rng.permuted(np.tile(np.arange(len(PLACES)), (count, 1)), axis=1)
    return np.concatenate([allowed[np.stack([first, second], 1)], quarters[:, :2, None]], -1)


def compose_scenes(
    things: Things,
    cut_outs: CutOuts,
    backgrounds: Bytes,
    brightness: float,
    tint: float,
    rng: np.random.Generator,
) -> Scenes:
    """Lay garments on random pieces of random photographs.

    Args:
        things: Kind, color and place of two garments in each of N scenes, `[N, 2, 3]` int64.
        cut_outs: The garments to draw from.
        backgrounds: Photographs, `[P, H, W, 3]` uint8.
        brightness: Factor on the photographs' pixel values, 0 (black) to 1 (as taken).
        tint: How far red, green and blue of a photograph are brighter or darker, as a share.
        rng: Source of every random choice.
    """
    count = len(things)
    light = brightness * rng.uniform(1 - tint, 1 + tint, (count, 1, 1, 3)).astype(np.float32)
    images = np.minimum(light * random_crops(backgrounds, count, SCENE_SIZE, rng), 255)
    masks = np.zeros((count, 2, SCENE_SIZE, SCENE_SIZE), bool)
    scene = np.arange(count)[:, None, None]
    for which in range(2):
        kind, color, place = things[:, which].T
        garment = np.array([rng.choice(cut_outs.of_kind[k]) for k in kind])
        opacity = cut_outs.opacity[garment][..., None]
        colored = cut_outs.shades[garment][..., None] * _varied(_RGB[color], rng)[:, None, None]
        rows, columns = _pixels(place, rng)
        below = images[scene, rows, columns]
        images[scene, rows, columns] = 255 * colored + (1 - opacity) * below
        masks[scene, which, rows, columns] = opacity[..., 0] >= 0.5
    return Scenes(np.round(images).astype(np.uint8), things, masks)


def close_ups(scenes: Scenes) -> Scenes:
    """Cut both garments out of N scenes: the quarter around each, `[2N, 24, 24, 3]`.

    Each close-up shows one thing, which `things` and `masks` then name twice, without a place.
    """
    images, things, masks = [], [], []
    for which in range(2):
        shown = np.repeat(scenes.things[:, which : which + 1], 2, 1)
        top, left = (_QUARTER * half for half in np.divmod(shown[:, 0, 2], 2))
        span = np.arange(_QUARTER)
        rows, columns = (top[:, None] + span)[:, :, None], (left[:, None] + span)[:, None]
        scene = np.arange(len(shown))[:, None, None]
        images.append(scenes.images[scene, rows, columns])
        masks.append(np.repeat(scenes.masks[scene, which, rows, columns][:, None], 2, 1))
        shown[..., 2] = len(PLACES)
        things.append(shown)
    return Scenes(np.concatenate(images), np.concatenate(things), np.concatenate(masks))


def _small(images: Floats) -> Floats:
    size = (_GARMENT_SIZE, _GARMENT_SIZE)
    tensor = torch.from_numpy(images.astype(np.float32))[:, None]
    small: Floats = F.interpolate(tensor, size, mode="bilinear", antialias=True)[:, 0].numpy()
    return small


def _varied(colors: Floats, rng: np.random.Generator) -> Floats:
    """Return colors `[N, 3]` a little darker and of other hues."""
    darker = rng.uniform(0.85, 1.0, (len(colors), 1)) * colors
    found: Floats = np.clip(darker + rng.normal(0, 0.05, colors.shape), 0, 1).astype(np.float32)
    return found


def _pixels(
    place: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return rows `[N, 22, 1]` and columns `[N, 1, 22]` of garments, half of them mirrored."""
    count, span = len(place), np.arange(_GARMENT_SIZE)
    slack = _QUARTER - _GARMENT_SIZE
    top, left = _QUARTER * np.stack(np.divmod(place, 2)) + rng.integers(0, slack + 1, (2, count))
    mirrored = rng.integers(0, 2, (count, 1)).astype(bool)
    columns = left[:, None] + np.where(mirrored, span[::-1], span)
    return (top[:, None] + span)[:, :, None], columns[:, None]
