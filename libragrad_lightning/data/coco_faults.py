"""What can be wrong with an entry of COCO's instance annotations, and what to change.

Whatever passes is drawn by pycocotools, whose C code trusts its input.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

_FARTHEST = 1e6
"""Largest coordinate, in pixels: pycocotools walks along every edge, pixel by pixel."""

_POLYGONS = "write each polygon as one list, [[x, y, x, y, ...], ...]"
_MEND = "mend or remove it"
_DROP = "or remove the annotation"


def image_fault(entry: Any) -> str | None:
    """Say what is wrong with an entry of `images`.

    Args:
        entry: As JSON has it.

    Returns:
        What is wrong and what to change, or None.
    """
    fault = _entry_fault(entry, ("id", "file_name", "height", "width"))
    if fault is not None:
        return fault
    for key in ("height", "width"):
        if type(entry[key]) is not int or entry[key] < 1:
            return f"has the {key} {_shown(entry[key])}; give it in pixels, as a whole number"
    if not isinstance(entry["file_name"], str):
        return f"has the file_name {_shown(entry['file_name'])}; {_MEND}"
    return None


def category_fault(entry: Any) -> str | None:
    """Say what is wrong with an entry of `categories`.

    Args:
        entry: As JSON has it.

    Returns:
        What is wrong and what to change, or None.
    """
    return _entry_fault(entry, ("id", "name"))


def annotation_fault(
    entry: Any, sizes: Mapping[Any, tuple[int, int]], categories: Collection[Any]
) -> str | None:
    """Say what is wrong with an entry of `annotations`.

    Args:
        entry: As JSON has it.
        sizes: Height and width of the listed images, by number.
        categories: Numbers of the listed categories.

    Returns:
        What is wrong and what to change, or None.
    """
    fault = _entry_fault(entry, ())
    if fault is not None:
        return fault
    known: dict[str, tuple[str, Collection[Any]]] = {
        "image_id": ("images", sizes),
        "category_id": ("categories", categories),
    }
    for key, (place, numbers) in known.items():
        number = entry.get(key)
        if not isinstance(number, Hashable) or number not in numbers:
            return (
                f"has the {key} {_shown(number)}, which is not listed; add it to {place}, {_DROP}"
            )
    image = entry["image_id"]
    return segmentation_fault(entry.get("segmentation"), image, sizes[image])


def segmentation_fault(segmentation: Any, image: Any, size: tuple[int, int]) -> str | None:
    """Say what is wrong with a segmentation.

    Args:
        segmentation: As JSON has it.
        image: Number of the image, for the error.
        size: Height and width of the image.

    Returns:
        What is wrong and what to change, or None.
    """
    if not segmentation:
        return f"has an empty segmentation; draw its mask, {_DROP}"
    if isinstance(segmentation, Mapping):
        return _rle_fault(segmentation, image, size)
    if not isinstance(segmentation, list):
        return f"has the segmentation {_shown(segmentation)}; {_POLYGONS}, or as an RLE"
    if not any(isinstance(polygon, list) for polygon in segmentation):
        return f"has a flat polygon {_shown(segmentation)}; {_POLYGONS}"
    return next((fault for p in segmentation if (fault := _polygon_fault(p)) is not None), None)


def runs_fault(runs: Sequence[Any], pixels: int) -> str | None:
    """Say what is wrong with the runs of an RLE.

    Args:
        runs: Lengths of runs.
        pixels: Of the image.

    Returns:
        What they are, or None if they are as many pixels as the image has.
    """
    if any(type(run) is not int or run < 0 for run in runs):
        return f"the runs {_shown(list(runs))}"
    if sum(runs) != pixels:
        return f"runs for {sum(runs)} pixels"
    # Runs of no pixels can be any number; pycocotools has room for one more than pixels.
    return f"{len(runs)} runs for {pixels} pixels" if len(runs) > pixels + 1 else None


def _entry_fault(entry: Any, keys: Sequence[str]) -> str | None:
    if not isinstance(entry, Mapping):
        return f"is {_shown(entry)} instead of an object; {_MEND}"
    missing = [key for key in keys if key not in entry]
    return f"has no {', '.join(missing)}; {_MEND}" if missing else None


def _polygon_fault(polygon: Any) -> str | None:
    if not isinstance(polygon, list):
        return f"has {_shown(polygon)} among its polygons; {_POLYGONS}"
    if any(isinstance(point, list) for point in polygon) or len(polygon) == 2:
        return f"has a polygon of points {_shown(polygon)}; {_POLYGONS}"
    if len(polygon) < 6 or len(polygon) % 2:
        return (
            f"has a polygon of {len(polygon)} numbers, which is not made of three or more points; "
            f"{_MEND}"
        )
    try:
        # The sum of numbers is finite only if each one is.
        usable = math.isfinite(sum(polygon)) and max(map(abs, polygon)) <= _FARTHEST
    except (TypeError, OverflowError):
        usable = False
    if not usable:
        return f"has a polygon {_shown(polygon)} with a value that is no coordinate; {_MEND}"
    return None


def _rle_fault(rle: Mapping[str, Any], image: Any, size: tuple[int, int]) -> str | None:
    counts, given = rle.get("counts"), rle.get("size")
    if not counts:
        return f"has an empty segmentation; draw its mask, {_DROP}"
    if not isinstance(given, list) or given != list(size):
        transposed = given == [size[1], size[0]]
        return (
            f"has a mask of size {_shown(given)}, unlike its image {image} of {list(size)}; "
            f"{'write size as [height, width]' if transposed else _MEND}"
        )
    if isinstance(counts, str):
        return None
    if not isinstance(counts, list):
        return f"has the counts {_shown(counts)}; {_MEND}"
    fault = runs_fault(counts, size[0] * size[1])
    return None if fault is None else f"has {fault}, unlike its image {image}; {_MEND}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
