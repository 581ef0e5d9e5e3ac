"""Read mask files as annotation tools write them: indexed, gray, black and white, or transparent.

- An indexed file (with a palette) holds class numbers: what is not 0 is the object, whatever the
  colors are.
- In a gray file, what is not 0 is the object, too.
- 255 beside other numbers is void, as in Pascal VOC: neither object nor background (65535 in a
  16-bit file). In a file of 0 and 255 alone, 255 is the object.
- 255 beside shades of gray from 64 on is the object with soft edges: cut at 128.
- A file with an alpha channel that is not opaque everywhere shows the object where it is opaque:
  more than half as opaque as its most opaque pixel.
- In a colored file, what is not black is the object.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libragrad_lightning.data.batches import Bytes, Mask
from libragrad_lightning.image_files import is_deep_gray, open_upright, to_rgb


def read_mask(path: Path) -> tuple[Mask, Mask]:
    """Read a mask file.

    Args:
        path: The file, in any of Pillow's formats; its EXIF orientation is applied.

    Returns:
        The pixels of the object and the void pixels, that are neither object nor background, each
        `[H, W]`; no pixel is in both.

    Raises:
        ValueError: If the file is missing, is no image, or is damaged.
    """
    image = open_upright(path)
    if is_deep_gray(image):
        return object_and_void(np.asarray(image).astype(np.int64), 65535)
    if image.mode == "P":
        return object_and_void(np.asarray(image), 255, indexed=True)
    if "A" in image.getbands():
        alpha: Bytes = np.asarray(image.getchannel("A"))
        if alpha.min() < 255:
            return _without_void(alpha > int(alpha.max()) // 2)
    pixels = np.asarray(to_rgb(image, path))
    if (pixels == pixels[..., :1]).all():
        return object_and_void(pixels[..., 0], 255)
    return _without_void(pixels.max(axis=-1) > 0)


def object_and_void(
    values: npt.NDArray[np.integer[Any]], highest: int, indexed: bool = False
) -> tuple[Mask, Mask]:
    """Tell object and void pixels apart by the values of a mask.

    Args:
        values: `[H, W]`.
        highest: The highest value of the file's type: 255 or 65535.
        indexed: Whether the values are class numbers for certain, and not shades of gray.

    Returns:
        The pixels of the object and the void pixels, each `[H, W]`.
    """
    marked, full = values > 0, values == highest
    others = values[marked & ~full]
    if full.any() and others.size:
        if not indexed and others.max() > highest // 4:
            return _without_void(values > highest // 2)
        return marked & ~full, full | (values < 0)
    return marked, values < 0


def _without_void(inside: Mask) -> tuple[Mask, Mask]:
    return inside, np.zeros_like(inside)
