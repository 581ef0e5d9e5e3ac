"""Read image files of any of Pillow's formats: upright, and as RGB.

Grayscale images of more than 8 bits (modes `I` and `I;16`) are scaled to bytes. A 12-bit radiograph
in a 16-bit file would come out nearly black if the whole 16 bits were the range, so the range is a
number of bits that is the same for all images of a data set: `measure_gray_bits` finds it.
torchvision's `default_loader` does none of this: it leaves photographs on their side and deep
grayscale clipped at 255, and names no file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

GRAY_BITS = (8, 10, 12, 14, 16)
"""Ranges that `measure_gray_bits` chooses from."""

_MEASURED_FILES = 64

T = TypeVar("T")


def open_upright(path: Path) -> Image.Image:
    """Read an image file and turn it as its EXIF orientation says.

    Args:
        path: The file.

    Returns:
        The image in the mode in which it is stored.

    Raises:
        ValueError: If the file is missing, is no image, or is damaged.
    """
    try:
        with Image.open(path) as file:
            file.load()
            return upright(file)
    except FileNotFoundError:
        raise ValueError(f"The image {path} is missing; put it back, or change its path.") from None
    except UnidentifiedImageError:
        raise ValueError(f"The file {path} is not an image; replace or remove it.") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"The image {path} cannot be read ({error}); replace or remove it."
        ) from error


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says.

    Args:
        image: As it is stored; turned in place.

    Returns:
        The same image, not turned if it has no EXIF block, or one that cannot be read.
    """
    try:
        image.getexif()
    except (SyntaxError, struct.error, ValueError, TypeError, KeyError):
        return image
    # The block would be written anew, which fails for odd ones; nothing here needs it.
    for key in ("exif", "Raw profile type exif"):
        image.info.pop(key, None)
    ImageOps.exif_transpose(image, in_place=True)
    return image


def read_rgb(path: Path, gray_bits: int = 16) -> Image.Image:
    """Read an image file in any of Pillow's formats, upright and as RGB.

    Args:
        path: The file.
        gray_bits: Bits of a grayscale image that has more than 8, 1 to 16.

    Returns:
        RGB; see `to_rgb`.

    Raises:
        ValueError: If the file is missing, is no image, or has values out of range.
    """
    return to_rgb(open_upright(path), path, gray_bits)


def to_rgb(image: Image.Image, path: Path, gray_bits: int = 16) -> Image.Image:
    """Convert an image of any of Pillow's modes to RGB.

    Transparency is dropped, as torchvision and timm do. Deep grayscale is scaled from
    0 ... 2^gray_bits - 1, floating point from [0, 1], or taken as bytes where it lies in [0, 255].

    Args:
        image: Of any mode.
        path: Its file, for the error.
        gray_bits: Bits of a grayscale image that has more than 8, 1 to 16.

    Returns:
        RGB.

    Raises:
        ValueError: If values are out of range, or Pillow cannot convert the mode.
    """
    if is_deep_gray(image):
        return _gray_to_rgb(_integers_to_shares(np.asarray(image), path, gray_bits))
    if image.mode == "F":
        return _gray_to_rgb(_floats_to_shares(np.asarray(image), path))
    try:
        # Pillow warns where a palette with transparency becomes RGB at once.
        return (image.convert("RGBA") if image.mode in ("P", "PA") else image).convert("RGB")
    except ValueError:
        raise ValueError(
            f"The image {path} has the mode {image.mode}, which cannot become RGB; save it as RGB."
        ) from None


def is_deep_gray(image: Image.Image) -> bool:
    """Say whether an image is grayscale of integers that may need more than 8 bits."""
    return image.mode.startswith("I")


def measure_gray_bits(files: Sequence[Path]) -> int:
    """Find the range of a data set's deep grayscale images.

    Args:
        files: Its images; at most 64 of them, evenly spaced, are looked at.

    Returns:
        The smallest of 8, 10, 12, 14 and 16 bits that covers the images that were looked at; 16 if
        none of them is deep grayscale.
    """
    highest = [value for file in spread(files, _MEASURED_FILES) if (value := _maximum(file)) >= 0]
    if not highest:
        return GRAY_BITS[-1]
    needed = max(highest).bit_length()
    return next((bits for bits in GRAY_BITS if bits >= needed), GRAY_BITS[-1])


def check_gray_bits(gray_bits: int | None) -> int | None:
    """Return the argument `gray_bits` of a data module.

    Args:
        gray_bits: 1 to 16, or None.

    Raises:
        ValueError: If it is neither.
    """
    if gray_bits is not None and not 1 <= gray_bits <= 16:
        raise ValueError(f"gray_bits must be None or 1 to 16, but is {gray_bits}; change it.")
    return gray_bits


def spread(items: Sequence[T], count: int) -> list[T]:
    """Choose items at even distances, the first and the last among them.

    Args:
        items: To choose from.
        count: How many at most, above 0.

    Returns:
        The chosen ones, in order; the same ones every time.
    """
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[index] for index in chosen]


def _maximum(path: Path) -> int:
    """Return the highest value of a deep grayscale image, or -1 for any other file."""
    try:
        with Image.open(path) as image:
            # Only the header of any other image is read.
            return int(np.asarray(image).max()) if is_deep_gray(image) else -1
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return -1  # It is named when it is read as a sample.


def _integers_to_shares(
    values: npt.NDArray[np.integer[Any]], path: Path, gray_bits: int
) -> npt.NDArray[np.float64]:
    low, high, largest = int(values.min()), int(values.max()), 2**gray_bits - 1
    if low < 0 or high > 65535:
        raise ValueError(
            f"The image {path} holds values from {low} to {high}, but they have to lie between 0 "
            "and 65535; save it as 16-bit grayscale."
        )
    if high > largest:
        raise ValueError(
            f"The image {path} holds the value {high}, but the grayscale images of its data set "
            f"are read with {gray_bits} bits, up to {largest}; set gray_bits to "
            f"{high.bit_length()} or more."
        )
    return values.astype(np.float64) / largest


def _floats_to_shares(values: npt.NDArray[np.float32], path: Path) -> npt.NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):
        raise ValueError(
            f"The floating-point image {path} holds values from {low:g} to {high:g}; scale it to "
            "[0, 1]."
        )
    return values.astype(np.float64) / (1 if high <= 1 else 255)


def _gray_to_rgb(shares: npt.NDArray[np.float64]) -> Image.Image:
    gray = np.round(shares * 255).astype(np.uint8)
    return Image.fromarray(gray).convert("RGB")


def image_paths(paths: Sequence[Path]) -> list[Path]:
    """Return files, and in place of folders the image files in them, in the order of their names.

    Raises:
        ValueError: If there is none, or a path does not exist.
    """
    endings = set(Image.registered_extensions())
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in endings)
            if not inside:
                raise ValueError(f"The folder {path} holds no image; change its path.")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ValueError(f"The image {path} is missing; put it back, or change its path.")
    return found
