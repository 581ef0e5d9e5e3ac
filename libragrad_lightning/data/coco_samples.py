"""Classes in images of COCO: their annotations, labels, files and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets.folder import is_image_file

from libragrad_lightning.data.annotated import AnnotatedImage, check_same_size
from libragrad_lightning.data.batches import Mask
from libragrad_lightning.data.coco_annotations import (
    CocoAnnotations,
    CocoImage,
    CocoInstance,
    read_annotations,
)
from libragrad_lightning.data.coco_masks import class_area, class_mask
from libragrad_lightning.data.transforms import EvalTransform
from libragrad_lightning.image_files import measure_gray_bits, read_rgb


@dataclass(frozen=True)
class ClassRegion:
    """All annotations of one class in one image.

    Attributes:
        label: Class index.
        instances: At least one.
    """

    label: int
    instances: tuple[CocoInstance, ...]


@dataclass(frozen=True)
class CocoSample:
    """One class in one image, and perhaps a second one.

    Attributes:
        path: The image's file.
        image: What the annotation file says of the image.
        region: The class to be explained.
        other: Another class of the image, or None.
    """

    path: Path
    image: CocoImage
    region: ClassRegion
    other: ClassRegion | None = None


def read_split(root: Path, name: str) -> tuple[CocoAnnotations, Path]:
    """Read the annotations of a split.

    Args:
        root: Folder with the images' folders and `annotations`.
        name: Of the split, such as `val2017`.

    Returns:
        The annotations, and the folder of the images.

    Raises:
        ValueError: If the annotation file is missing or faulty.
    """
    return read_annotations(root / "annotations" / f"instances_{name}.json"), root / name


def category_labels(
    annotations: CocoAnnotations, labels: Mapping[str, int] | None
) -> Mapping[str, int]:
    """Check the categories asked for, or number all.

    Args:
        annotations: What the file says.
        labels: Class index by category, or None.

    Returns:
        Class index by category.

    Raises:
        ValueError: If the file has no such category.
    """
    if labels is None:
        return {name: index for index, name in enumerate(annotations.categories)}
    unknown = sorted(set(labels) - set(annotations.categories))
    if unknown:
        raise ValueError(f"{annotations.path} has no category {', '.join(unknown)}; change labels.")
    return labels


def class_regions(
    annotations: CocoAnnotations, image: CocoImage, labels: Mapping[str, int]
) -> list[ClassRegion]:
    """Collect the annotations of each class in an image.

    Args:
        annotations: What the file says.
        image: One of its images.
        labels: Class index by category.

    Returns:
        The classes that occur, in the order of `labels`.
    """
    found = annotations.by_category(image)
    return [
        ClassRegion(label, found[category])
        for category, label in labels.items()
        if category in found
    ]


def largest_class(
    annotations: CocoAnnotations, image: CocoImage, labels: Mapping[str, int]
) -> ClassRegion | None:
    """Return the class that covers most of an image, None if none of them occurs.

    Args:
        annotations: What the file says.
        image: One of its images.
        labels: Class index by category.
    """
    regions = class_regions(annotations, image, labels)
    return max(regions, key=lambda r: class_area(image, r.instances), default=None)


def image_path(folder: Path, image: CocoImage, argument: str = "root") -> Path:
    """Return the file of an image.

    Args:
        folder: Of the split's images.
        image: What the annotation file says of it.
        argument: What a user changes if it is not there.

    Returns:
        The file.

    Raises:
        ValueError: If there is none.
    """
    path = folder / image.file_name
    if not path.is_file():
        raise ValueError(
            f"Image {image.id} of the annotations is missing from {folder} ({image.file_name}); "
            f"put it back, or change {argument}."
        )
    return path


def split_gray_bits(folders: Sequence[Path]) -> int:
    """Find the range of the deep grayscale images of a data set.

    Args:
        folders: Of the splits' images, with subfolders or without; the first one that there is
            decides for all splits.

    Returns:
        8, 10, 12, 14 or 16 bits.
    """
    folder = next((folder for folder in folders if folder.is_dir()), None)
    found = () if folder is None else sorted(folder.rglob("*"))
    return measure_gray_bits([path for path in found if is_image_file(path.name)])


def overlap(first: Mask, second: Mask) -> float:
    """Compare two masks.

    Args:
        first: `[H, W]`, not empty.
        second: `[H, W]`, not empty.

    Returns:
        Share of the smaller one that is in both.
    """
    return float((first & second).sum() / min(first.sum(), second.sum()))


def crop_shares(transform: EvalTransform, sample: CocoSample) -> list[float]:
    """Measure the classes of a sample in the model's crop.

    Args:
        transform: The model's.
        sample: One or two classes in an image.

    Returns:
        Share of the crop that each class covers.
    """
    regions = [region for region in (sample.region, sample.other) if region is not None]
    masks = np.stack([class_mask(sample.image, region.instances) for region in regions])
    shares: list[float] = (
        transform.masks(torch.from_numpy(masks)).double().mean(dim=(1, 2)).tolist()
    )
    return shares


def read_coco_sample(sample: CocoSample, gray_bits: int) -> AnnotatedImage:
    """Read an image and draw its masks.

    Args:
        sample: One or two classes in an image.
        gray_bits: Bits of a grayscale image that has more than 8, 1 to 16.

    Returns:
        The image, label and mask, and those of the other class if there is one.

    Raises:
        ValueError: If the file is no image, or has not the annotations' size.
    """
    image = read_rgb(sample.path, gray_bits)
    mask = class_mask(sample.image, sample.region.instances)
    check_same_size(image, mask, sample.path)
    if sample.other is None:
        return AnnotatedImage(image, sample.region.label, mask)
    return AnnotatedImage(
        image,
        sample.region.label,
        mask,
        other_label=sample.other.label,
        other_mask=class_mask(sample.image, sample.other.instances),
    )
