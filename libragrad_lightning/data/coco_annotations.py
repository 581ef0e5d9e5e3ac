"""Read and check COCO's instance annotations, and let pycocotools index them.

Its own reader is not used: it checks nothing, and its C code trusts what it is given.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from libragrad_lightning.data.coco_faults import annotation_fault, category_fault, image_fault

Rle = Mapping[str, Any]
"""A run-length encoded mask in the form of `pycocotools.mask`: `size` (H, W) and `counts`."""


@dataclass(frozen=True)
class CocoImage:
    """An image that is listed in an annotation file.

    Attributes:
        id: COCO's number of the image.
        file_name: Name within the images' folder.
        height: Pixels.
        width: Pixels.
    """

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class CocoInstance:
    """One annotated object, or one crowd of objects.

    Attributes:
        id: COCO's number of the annotation.
        segmentation: Polygons, `[[x, y, x, y, ...], ...]`, or an RLE, compressed or not.
    """

    id: int
    segmentation: Sequence[Sequence[float]] | Rle


@dataclass(frozen=True)
class CocoAnnotations:
    """What an annotation file says.

    Attributes:
        path: The file.
        index: Its content as pycocotools arranges it, checked.
    """

    path: Path
    index: COCO

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        categories = self.index.cats
        return tuple(str(categories[number]["name"]) for number in sorted(categories, key=_order))

    @property
    def images(self) -> tuple[CocoImage, ...]:
        """Images in the order of their numbers."""
        images = self.index.imgs
        return tuple(_image(images[number]) for number in sorted(images, key=_order))

    def by_category(self, image: CocoImage) -> dict[str, tuple[CocoInstance, ...]]:
        """Return the annotations of an image, crowds included, by the name of their class."""
        found: dict[str, tuple[CocoInstance, ...]] = {}
        for entry in self.index.imgToAnns.get(image.id, ()):
            name = str(self.index.cats[entry["category_id"]]["name"])
            instance = CocoInstance(entry["id"], entry["segmentation"])
            found[name] = (*found.get(name, ()), instance)
        return found


def read_annotations(path: Path) -> CocoAnnotations:
    """Read and check an annotation file in the form of `instances_val2017.json`.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        ValueError: If the file is missing or has another form, or if an annotation occurs twice,
            names an image or a category that the file does not have, or has no usable segmentation;
            the message gives the annotation's number.
    """
    content: Any = _read_json(path)
    images = _by_number(path, "Image", content["images"], image_fault)
    categories = _by_number(path, "Category", content["categories"], category_fault)
    sizes = {number: (entry["height"], entry["width"]) for number, entry in images.items()}
    fault_of = partial(annotation_fault, sizes=sizes, categories=categories)
    _by_number(path, "Annotation", content["annotations"], fault_of)
    index = COCO()
    index.dataset = content
    # It prints.
    with redirect_stdout(io.StringIO()):
        index.createIndex()
    return CocoAnnotations(path, index)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"There is no annotation file {path}; change root or the split's name.")
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        raise ValueError(f"The annotation file {path} is not JSON; fetch it again.") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"The annotation file {path} holds a {type(content).__name__}, not an object with "
            "images and annotations; use COCO's instance annotations."
        )
    missing = {"images", "annotations", "categories"} - set(content)
    if missing:
        raise ValueError(
            f"The annotation file {path} has no {', '.join(sorted(missing))}; use COCO's instance "
            "annotations, such as instances_val2017.json."
        )
    return content


def _by_number(
    path: Path, kind: str, entries: Any, fault_of: Callable[[Any], str | None]
) -> dict[Any, Mapping[str, Any]]:
    if not isinstance(entries, list):
        raise ValueError(f"{path} has no list of its {kind.lower()} entries; fetch it again.")
    found: dict[Any, Mapping[str, Any]] = {}
    for place, entry in enumerate(entries, start=1):
        number = entry.get("id") if isinstance(entry, Mapping) else None
        if not isinstance(number, int | str):
            name, fault = f"{kind} entry {place}", fault_of(entry) or "has no number; give it an id"
        elif number in found:
            name, fault = f"{kind} {number}", "occurs twice; mend or remove it"
        else:
            name, fault = f"{kind} {number}", fault_of(entry) or ""
        if fault:
            raise ValueError(f"{name} of {path} {fault}.")
        found[number] = entry
    return found


def _order(number: int | str) -> tuple[bool, int | str]:
    return isinstance(number, str), number


def _image(entry: Mapping[str, Any]) -> CocoImage:
    return CocoImage(entry["id"], entry["file_name"], entry["height"], entry["width"])
