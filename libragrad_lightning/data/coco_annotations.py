"""Read COCO's instance annotations, and turn those of a class into a mask."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from libragrad_lightning.data.batches import Mask

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
        category: Name of its class.
        segmentation: Polygons, `[[x, y, x, y, ...], ...]`, or an RLE, compressed or not.
    """

    id: int
    category: str
    segmentation: Sequence[Sequence[float]] | Rle


@dataclass(frozen=True)
class CocoAnnotations:
    """What an annotation file says.

    Attributes:
        path: The file.
        categories: Names of the classes, in the order of their numbers.
        images: Images in the order of their numbers.
        instances: Annotations by the number of their image; images without any are missing.
    """

    path: Path
    categories: tuple[str, ...]
    images: tuple[CocoImage, ...]
    instances: Mapping[int, Sequence[CocoInstance]]

    def of_category(self, image: CocoImage, category: str) -> tuple[CocoInstance, ...]:
        """Return the annotations of a class in an image, crowds included."""
        instances = self.instances.get(image.id, ())
        return tuple(instance for instance in instances if instance.category == category)


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
    content = _read_json(path)
    images = {image.id: image for image in (_image(path, entry) for entry in content["images"])}
    categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
    instances: defaultdict[int, list[CocoInstance]] = defaultdict(list)
    seen: set[int] = set()
    for entry in content["annotations"]:
        number = entry.get("id")
        fault = "occurs twice" if number in seen else _fault(entry, images, categories)
        if fault is not None:
            raise ValueError(f"Annotation {number} of {path} {fault}; mend or remove it.")
        seen.add(number)
        category = categories[entry["category_id"]]
        instances[entry["image_id"]].append(CocoInstance(number, category, entry["segmentation"]))
    return CocoAnnotations(
        path,
        tuple(categories[number] for number in sorted(categories)),
        tuple(images[number] for number in sorted(images)),
        dict(instances),
    )


def class_rle(image: CocoImage, instances: Sequence[CocoInstance]) -> Rle:
    """Unite annotations, whether they are polygons, RLEs or crowds.

    Args:
        image: The image that they belong to.
        instances: At least one.

    Returns:
        A compressed RLE of the image's size.
    """
    rles: list[Rle] = []
    for instance in instances:
        segmentation = instance.segmentation
        if isinstance(segmentation, Mapping) and not isinstance(segmentation["counts"], list):
            rles.append(segmentation)
        else:
            encoded = mask_api.frPyObjects(segmentation, image.height, image.width)
            rles.extend(encoded if isinstance(encoded, list) else [encoded])
    united: Rle = mask_api.merge(rles)
    return united


def class_mask(image: CocoImage, instances: Sequence[CocoInstance]) -> Mask:
    """Draw the mask of a class: the pixels of any of its annotations.

    Args:
        image: The image that they belong to.
        instances: At least one.

    Returns:
        `[H, W]`.
    """
    return np.asarray(mask_api.decode(class_rle(image, instances)), bool)


def class_area(image: CocoImage, instances: Sequence[CocoInstance]) -> int:
    """Count the pixels of a class.

    Args:
        image: The image that they belong to.
        instances: At least one.

    Returns:
        Number of pixels of the mask.
    """
    return int(mask_api.area(class_rle(image, instances)))


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"There is no annotation file {path}; change root or the split's name.")
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        raise ValueError(f"The annotation file {path} is not JSON; fetch it again.") from None
    missing = {"images", "annotations", "categories"} - set(content)
    if missing:
        raise ValueError(
            f"The annotation file {path} has no {', '.join(sorted(missing))}; use COCO's instance "
            "annotations, such as instances_val2017.json."
        )
    return dict(content)


def _image(path: Path, entry: Mapping[str, Any]) -> CocoImage:
    missing = [key for key in ("id", "file_name", "height", "width") if key not in entry]
    if missing:
        raise ValueError(
            f"Image {entry.get('id')} of {path} has no {', '.join(missing)}; mend or remove it."
        )
    return CocoImage(entry["id"], entry["file_name"], entry["height"], entry["width"])


def _fault(
    entry: Mapping[str, Any], images: Mapping[int, CocoImage], categories: Mapping[int, str]
) -> str | None:
    """Say what is wrong with an annotation, or None."""
    listed: Mapping[str, Container[int]] = {"image_id": images, "category_id": categories}
    for key, known in listed.items():
        if entry.get(key) not in known:
            return f"has the {key} {entry.get(key)}, which is not listed"
    return _segmentation_fault(entry.get("segmentation"), images[entry["image_id"]])


def _segmentation_fault(segmentation: Any, image: CocoImage) -> str | None:
    """Say what is wrong with a segmentation, or None."""
    if not segmentation:
        return "has an empty segmentation"
    if isinstance(segmentation, Mapping):
        return _rle_fault(segmentation, image)
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
        return "has a polygon that is not made of three or more points"
    return None


def _rle_fault(rle: Rle, image: CocoImage) -> str | None:
    counts = rle.get("counts")
    if not counts:
        return "has an empty segmentation"
    if tuple(rle.get("size", ())) != (image.height, image.width):
        return f"has a mask of size {rle.get('size')}, unlike its image {image.id}"
    # pycocotools would write past the end of the mask.
    if isinstance(counts, list) and sum(counts) != image.height * image.width:
        return f"has runs for {sum(counts)} pixels, unlike its image {image.id}"
    return None
