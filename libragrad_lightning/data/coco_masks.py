"""Turn COCO's annotations into masks, with pycocotools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from libragrad_lightning.data.batches import Mask
from libragrad_lightning.data.coco_annotations import CocoImage, CocoInstance, Rle
from libragrad_lightning.data.coco_faults import runs_fault


def class_rle(image: CocoImage, instances: Sequence[CocoInstance]) -> Any:
    """Unite annotations, whether they are polygons, RLEs or crowds.

    Args:
        image: The image that they belong to.
        instances: At least one.

    Returns:
        A compressed RLE of the image's size.

    Raises:
        ValueError: If the code of a compressed RLE is damaged; gives the annotation's number.
    """
    rles: list[Any] = []
    for instance in instances:
        segmentation: Any = _drawable(image, instance)
        encoded = mask_api.frPyObjects(segmentation, image.height, image.width)
        rles.extend(encoded if isinstance(encoded, list) else [encoded])
    return mask_api.merge(rles)


def class_mask(image: CocoImage, instances: Sequence[CocoInstance]) -> Mask:
    """Draw the mask of a class: the pixels of any of its annotations.

    Args:
        image: The image that they belong to.
        instances: At least one.

    Returns:
        `[H, W]`.

    Raises:
        ValueError: As `class_rle`.
    """
    return np.asarray(mask_api.decode(class_rle(image, instances)), bool)


def class_area(image: CocoImage, instances: Sequence[CocoInstance]) -> int:
    """Count the pixels of a class.

    Args:
        image: The image that they belong to.
        instances: At least one.

    Returns:
        Number of pixels of the mask.

    Raises:
        ValueError: As `class_rle`.
    """
    return int(mask_api.area(class_rle(image, instances)))


def read_runs(code: str) -> list[int] | None:
    """Read the `counts` of a compressed RLE.

    Each number is made of groups of 5 bits, the lowest first, one character each; from the fourth
    number on, it is the difference to the last but one.

    Args:
        code: The string.

    Returns:
        Lengths of runs, from the top down, column by column, the first one outside of the mask; or
        None if a character is none of the code's, or the last number breaks off.
    """
    runs: list[int] = []
    number = shift = 0
    for character in code:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        number -= (bits & 16) << (shift - 4)
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return None if shift else runs


def _drawable(image: CocoImage, instance: CocoInstance) -> Sequence[Sequence[float]] | Rle:
    """Return a segmentation with its code read, since pycocotools trusts a damaged one.

    It would write past the end of the mask or never come back.
    """
    segmentation = instance.segmentation
    if not isinstance(segmentation, Mapping) or isinstance(segmentation["counts"], list):
        return segmentation
    runs: Any = read_runs(segmentation["counts"])
    if runs is None or runs_fault(runs, image.height * image.width):
        raise ValueError(
            f"Annotation {instance.id} has counts that are no code of {image.height} x "
            f"{image.width} pixels; mend or remove it."
        )
    return {"size": [image.height, image.width], "counts": runs}
