"""Compose images of garments on photographs, with the garment's pixels as the mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from libragrad_lightning.data.batches import Bytes, Mask, Split
from libragrad_lightning.data.scenes.blending import blend

IMAGE_SIZE = 32
"""Height and width of a composite, pixels."""

_ASSETS = Path(__file__).parent / "assets"
SHADES = np.linspace(0.25, 1.0, 32, dtype=np.float32) * 255
"""Brightness of each gray level, 0 to 255.

The darkest starts at a quarter, so that no part of a garment vanishes into a dark background.
"""


@dataclass(frozen=True)
class Garments:
    """Gray garments cut out of their ground.

    Attributes:
        images: `[N, 28, 28]` uint8, 0 beside the garment and 1 to 31 on it.
        labels: Class of each garment, `[N]` int64, 0 to 9.
    """

    images: Bytes
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Composites:
    """Garments in color on photographs.

    Attributes:
        images: `[N, 32, 32, 3]` uint8, RGB.
        labels: Class of each garment, `[N]` int64, 0 to 9.
        masks: Pixels that the garment covers, `[N, 32, 32]` bool.
    """

    images: Bytes
    labels: npt.NDArray[np.int64]
    masks: Mask


def load_garments(split: Split, count: int) -> Garments:
    """Read the first `count` garments of a split; the classes take turns.

    Args:
        split: Which garments; no garment is in two splits.
        count: How many.

    Returns:
        The garments.

    Raises:
        ValueError: If `count` is not positive, or larger than the split.
    """
    with np.load(_ASSETS / "garments.npz") as archive:
        images, labels = archive[f"{split}_images"], archive[f"{split}_labels"]
    if not 0 < count <= len(images):
        raise ValueError(
            f"The {split} split holds {len(images)} garments, but {count} were asked for; "
            f"choose num_{split} between 1 and {len(images)}."
        )
    return Garments(images[:count], labels[:count].astype(np.int64))


def load_backgrounds(split: Split) -> Bytes:
    """Read the photographs of a split.

    Args:
        split: `"train"` has five photographs; `"val"` and `"test"` share three others.

    Returns:
        The photographs in the order of their file names, `[P, 192, 192, 3]` uint8, RGB.
    """
    group = "train" if split == "train" else "held_out"
    files = sorted(_ASSETS.glob(f"background_{group}_*.png"))
    return np.stack([np.asarray(Image.open(file)) for file in files])


def compose(
    garments: Garments,
    backgrounds: Bytes,
    brightness: float,
    max_shift: int,
    rng: np.random.Generator,
) -> Composites:
    """Lay every garment, in a random color, on a random piece of a random photograph.

    Args:
        garments: N garments.
        backgrounds: Photographs, `[P, H, W, 3]` uint8.
        brightness: Factor on the photographs' pixel values, 0 (black) to 1 (as taken).
        max_shift: Largest displacement of a garment from the center, pixels, 0 to 2.
        rng: Source of every random choice.

    Returns:
        N composites, in the order of the garments.
    """
    levels = _place(garments.images, max_shift, rng)[..., None]
    masks = levels > 0
    colors = random_colors(len(levels), rng)[:, None, None]
    crops = random_crops(backgrounds, len(levels), IMAGE_SIZE, rng)
    images = blend(np.float32(brightness) * crops, colors * SHADES[levels], masks)
    return Composites(images, garments.labels, masks[..., 0])


def _place(images: Bytes, max_shift: int, rng: np.random.Generator) -> Bytes:
    """Paste `[N, 28, 28]` into black `[N, 32, 32]`, off the center by up to `max_shift`."""
    count, height, width = images.shape
    margin = (IMAGE_SIZE - height) // 2
    top, left = margin + rng.integers(-max_shift, max_shift + 1, (2, count, 1))
    canvas = np.zeros((count, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    rows = (top + np.arange(height))[:, :, None]
    columns = (left + np.arange(width))[:, None, :]
    canvas[np.arange(count)[:, None, None], rows, columns] = images
    return canvas


def random_colors(count: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw RGB colors in [0, 1], `[N, 3]`, whose strongest channel is 1."""
    colors = rng.uniform(0.4, 1.0, (count, 3)).astype(np.float32)
    return colors / colors.max(axis=1, keepdims=True)


def random_crops(backgrounds: Bytes, count: int, size: int, rng: np.random.Generator) -> Bytes:
    """Cut squares out of photographs, half of them mirrored.

    Args:
        backgrounds: Photographs, `[P, H, W, 3]` uint8.
        count: How many squares.
        size: Their height and width, pixels.
        rng: Source of every random choice.

    Returns:
        `[count, size, size, 3]` uint8.
    """
    photographs, height, width, _ = backgrounds.shape
    photograph = rng.integers(0, photographs, (count, 1, 1))
    top = rng.integers(0, height - size + 1, (count, 1, 1))
    left = rng.integers(0, width - size + 1, (count, 1, 1))
    span = np.arange(size)
    mirrored = rng.integers(0, 2, (count, 1, 1)).astype(bool)
    columns = left + np.where(mirrored, span[::-1], span)
    return backgrounds[photograph, top + span[:, None], columns]
