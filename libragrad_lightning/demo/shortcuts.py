"""Planted shortcuts: pixels that betray the class of a composite."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from libragrad_lightning.data.batches import Bytes, Mask
from libragrad_lightning.demo.compositing import IMAGE_SIZE, Composites

Shortcut: TypeAlias = Literal["mark", "color", "background", "texture"]
Floats: TypeAlias = npt.NDArray[np.float32]

CLASSES = 10
PERIODS = (3.0, 4.0, 6.0, 9.0, 14.0)
"""From one stripe to the next, pixels; each stands for two classes, by the stripes' direction."""


@dataclass(frozen=True)
class Planting:
    """What is planted.

    Attributes:
        shortcut: The kind of cue, a key of `CUES`.
        strength: Its opacity, 0 (no cue) to 1.
        mark_size: Height and width of a mark, pixels.
    """

    shortcut: Shortcut
    strength: float
    mark_size: int


@dataclass(frozen=True)
class Cue:
    """What betrays the class of N composites.

    Attributes:
        region: Its pixels, `[N, 32, 32]`.
        paint: Their colors at full strength, 0 to 255, of a shape that broadcasts to
            `[N, 32, 32, 3]`.
        masks: Pixels that show the garment once the cue is there, `[N, 32, 32]`.
    """

    region: Mask
    paint: Floats
    masks: Mask


def plant(composites: Composites, planting: Planting, rng: np.random.Generator) -> Composites:
    """Paint a cue that says the class into every image.

    Args:
        composites: N composites.
        planting: What cue, and how strong.
        rng: Source of every random choice.

    Returns:
        New composites; their masks leave out what no longer shows the garment.
    """
    strength = planting.strength
    if strength == 0:
        return composites
    cue = CUES[planting.shortcut](composites, planting, rng)
    painted = (1 - strength) * composites.images + strength * cue.paint
    pixels = np.where(cue.region[..., None], np.round(painted), composites.images)
    return replace(composites, images=pixels.astype(np.uint8), masks=cue.masks)


def mark(composites: Composites, planting: Planting, rng: np.random.Generator) -> Cue:
    """Return a square in the top left corner, in the color of the class."""
    region = np.zeros_like(composites.masks)
    region[:, : planting.mark_size, : planting.mark_size] = True
    return Cue(region, _colors_of(composites), composites.masks & ~region)


def color(composites: Composites, planting: Planting, rng: np.random.Generator) -> Cue:
    """Return the garment itself, in the color of the class."""
    return Cue(composites.masks, _colors_of(composites), composites.masks)


def background(composites: Composites, planting: Planting, rng: np.random.Generator) -> Cue:
    """Return all but the garment, in the color of the class."""
    return Cue(~composites.masks, _colors_of(composites), composites.masks)


def texture(composites: Composites, planting: Planting, rng: np.random.Generator) -> Cue:
    """Return all but the garment, in gray stripes whose period and direction say the class.

    Stripes are upright or level, so that mirroring leaves the class what it is, and begin anywhere.
    """
    labels = composites.labels
    period = np.array(PERIODS)[labels // 2, None]
    phase = rng.uniform(0, 2 * np.pi, (len(labels), 1))
    wave = 127.5 * (1 + np.sin(2 * np.pi * np.arange(IMAGE_SIZE) / period + phase))
    upright = (labels % 2 == 0)[:, None, None]
    stripes = np.where(upright, wave[:, None, :], wave[:, :, None]).astype(np.float32)
    return Cue(~composites.masks, stripes[..., None], composites.masks)


CUES: Mapping[Shortcut, Callable[[Composites, Planting, np.random.Generator], Cue]] = {
    "mark": mark,
    "color": color,
    "background": background,
    "texture": texture,
}


def class_colors(count: int) -> Bytes:
    """Return bright colors, evenly around the color wheel, `[count, 3]` RGB."""
    colors = [colorsys.hsv_to_rgb(index / count, 1.0, 1.0) for index in range(count)]
    return np.round(255 * np.array(colors)).astype(np.uint8)


def _colors_of(composites: Composites) -> Floats:
    return class_colors(CLASSES)[composites.labels, None, None].astype(np.float32)
