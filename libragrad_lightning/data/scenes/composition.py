"""Paste cut-outs on photographs: one object, or two of different classes side by side."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from libragrad_lightning.data.batches import Bytes, Mask
from libragrad_lightning.data.scenes.blending import blend
from libragrad_lightning.data.scenes.cutouts import OPAQUE

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Variation:
    """How much an object differs from its cut-out.

    Attributes:
        rotation: Largest angle by which it is turned to either side, degrees.
        brightness: How much brighter or darker it is at most, as a share.
    """

    rotation: float
    brightness: float


@dataclass(frozen=True)
class Composition:
    """How scenes are composed.

    Attributes:
        image_size: Height and width of a scene, pixels.
        num_objects: 1, or 2 for two objects of different classes, one in the left half and one in
            the right half.
        object_size: Smallest and largest size of an object, as a share of the frame (of its half,
            in scenes with two objects), above 0 and at most 1.
        shortcut: Share of the scenes whose background has the color of the first object's class.
        variation: How much objects differ from their cut-outs, half of them mirrored; None to paste
            cut-outs as they are.
    """

    image_size: int
    num_objects: int
    object_size: tuple[float, float]
    shortcut: float = 0.0
    variation: Variation | None = None


@dataclass(frozen=True)
class PlacedObject:
    """One object of a scene.

    Attributes:
        label: Its class.
        number: Its place among the cut-outs of the class.
        mask: Pixels that show more of it than of the background, `[H, W]`.
    """

    label: int
    number: int
    mask: Mask


@dataclass(frozen=True)
class Scene:
    """A finished scene.

    Attributes:
        image: `[H, W, 3]` uint8, RGB.
        objects: One or two objects.
    """

    image: Bytes
    objects: tuple[PlacedObject, ...]


@dataclass(frozen=True)
class SceneParts:
    """What scenes are made of.

    Attributes:
        cutouts: RGBA cut-outs, a list for each class.
        backgrounds: RGB photographs.
    """

    cutouts: Sequence[Sequence[Image.Image]]
    backgrounds: Sequence[Image.Image]


def compose_scene(parts: SceneParts, composition: Composition, rng: np.random.Generator) -> Scene:
    """Choose classes, objects and a background at random, and put them together.

    Classes are drawn evenly, whatever the number of their cut-outs.

    Args:
        parts: Cut-outs and photographs.
        composition: How they are put together.
        rng: Source of every random choice.

    Returns:
        The scene.
    """
    size, count = composition.image_size, composition.num_objects
    labels = rng.choice(len(parts.cutouts), count, replace=False)
    image = random_square(parts.backgrounds[int(rng.integers(len(parts.backgrounds)))], size, rng)
    if rng.random() < composition.shortcut:
        image = tint(image, int(labels[0]) / len(parts.cutouts))
    columns = rng.permutation(count) * (size // count)
    objects = []
    for label, left in zip(labels.tolist(), columns.tolist(), strict=True):
        choices = parts.cutouts[label]
        number = int(rng.integers(len(choices)))
        cutout = varied(choices[number], composition.variation, rng)
        layer = place(cutout, size, (left, size // count), composition.object_size, rng)
        image = blend(image.astype(np.float32), layer[..., :3], layer[..., 3:] / 255)
        objects.append(PlacedObject(label, number, layer[..., 3] >= OPAQUE))
    return Scene(image, tuple(objects))


def random_square(photograph: Image.Image, size: int, rng: np.random.Generator) -> Bytes:
    """Cut a square of at least half the shorter side out of a photograph, mirrored half the time.

    Args:
        photograph: RGB.
        size: Height and width of the result, pixels.
        rng: Source of the random choices.

    Returns:
        `[size, size, 3]` uint8.
    """
    shorter = min(photograph.size)
    side = int(rng.integers((shorter + 1) // 2, shorter + 1))
    left, top = (int(rng.integers(length - side + 1)) for length in photograph.size)
    square = photograph.resize(
        (size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
    )
    pixels = np.asarray(square)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def varied(
    cutout: Image.Image, variation: Variation | None, rng: np.random.Generator
) -> Image.Image:
    """Turn a cut-out, make it brighter or darker, and mirror it half the time.

    Args:
        cutout: RGBA.
        variation: How much of it; None to leave the cut-out as it is.
        rng: Source of the random choices.

    Returns:
        RGBA, trimmed to what can be seen.
    """
    if variation is None:
        return cutout
    angle = rng.uniform(-variation.rotation, variation.rotation)
    factor = rng.uniform(1 - variation.brightness, 1 + variation.brightness)
    mirrored = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else cutout
    turned = mirrored.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    lit = ImageEnhance.Brightness(turned).enhance(factor)
    return lit.crop(lit.getchannel("A").getbbox())


def place(
    cutout: Image.Image,
    size: int,
    span: tuple[int, int],
    object_size: tuple[float, float],
    rng: np.random.Generator,
) -> Floats:
    """Put a cut-out on a transparent square, at a random size and place within some columns.

    Args:
        cutout: RGBA.
        size: Height and width of the square, pixels.
        span: First column and number of columns that the object may cover.
        object_size: Smallest and largest share of the span's width or of `size`, whichever the
            object reaches first.
        rng: Source of the random choices.

    Returns:
        RGBA values 0 to 255, `[size, size, 4]`.
    """
    first, columns = span
    fit = min(columns / cutout.width, size / cutout.height) * rng.uniform(*object_size)
    width, height = (max(1, round(side * fit)) for side in cutout.size)
    left = first + int(rng.integers(columns - width + 1))
    top = int(rng.integers(size - height + 1))
    layer = Image.new("RGBA", (size, size))
    layer.paste(cutout.resize((width, height), Image.Resampling.BICUBIC), (left, top))
    return np.asarray(layer, np.float32)


def tint(image: Bytes, hue: float) -> Bytes:
    """Give a picture one hue and keep its light and dark.

    Args:
        image: `[H, W, 3]` uint8.
        hue: Position on the color wheel, 0 to 1.

    Returns:
        `[H, W, 3]` uint8.
    """
    gray = image.astype(np.float32).mean(axis=-1, keepdims=True)
    color = np.array(colorsys.hsv_to_rgb(hue, 0.8, 1.0), np.float32)
    return np.round(gray * color).astype(np.uint8)
