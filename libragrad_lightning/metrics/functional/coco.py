"""COCO's average precision of instance masks, with thresholded maps as the predicted instances."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

COCO_IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""COCO's thresholds on the intersection over union, 0.5 to 0.95."""


@dataclass(frozen=True)
class Instance:
    """One mask of one image.

    Attributes:
        image: Index of the image.
        counts: Its pixels as COCO's compressed run lengths.
        size: Height and width of the image in pixels.
        label: Class index.
        score: Confidence of a predicted instance; any number for the others.
        is_crowd: Whether it marks a region in which predictions do not count.
    """

    image: int
    counts: bytes
    size: tuple[int, int]
    label: int = 0
    score: float = 0.0
    is_crowd: bool = False


def run_lengths(masks: Tensor) -> list[bytes]:
    """Return masks [N, H, W], boolean, as COCO's compressed run lengths."""
    columns = np.asfortranarray(masks.permute(1, 2, 0).cpu().numpy().astype(np.uint8))
    encoded: Any = rle.encode(columns)
    return [mask["counts"] for mask in encoded]


def coco_mask_average_precision(
    predictions: Sequence[Instance],
    objects: Sequence[Instance],
    iou_thresholds: Sequence[float] = COCO_IOU_THRESHOLDS,
) -> float:
    """Return COCO's average precision, averaged over classes and thresholds.

    Args:
        predictions: Predicted instances of all images.
        objects: True instances and crowd regions of all images.
        iou_thresholds: Intersections over union from which on a prediction counts as right, in
            (0, 1].

    Returns:
        Average precision in [0, 1]; NaN without a true instance.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import coco_mask_average_precision
        >>> from libragrad_lightning.metrics.functional.coco import Instance, run_lengths
        >>> counts, = run_lengths(torch.eye(8, dtype=torch.bool)[None])
        >>> instance = Instance(image=0, counts=counts, size=(8, 8))
        >>> round(coco_mask_average_precision([instance], [instance]), 6)
        1.0

    Source:
        Lin et al., Microsoft COCO: Common Objects in Context (ECCV 2014), as ``pycocotools``
        computes it.
    """
    if not any(not instance.is_crowd for instance in objects):
        return float("nan")
    known = [*objects, *predictions]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_dataset(objects, known), _dataset(predictions, known), "segm")
        evaluation.params.iouThrs = np.array(iou_thresholds)
        evaluation.evaluate()
        evaluation.accumulate()
    # By threshold, recall, class, size of the object and number of predictions per image.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def _dataset(instances: Sequence[Instance], known: Sequence[Instance]) -> Any:
    content: Any = {
        "images": [
            {"id": image, "height": size[0], "width": size[1]}
            for image, size in {instance.image: instance.size for instance in known}.items()
        ],
        "categories": [{"id": label} for label in sorted({instance.label for instance in known})],
        "annotations": [_annotation(index + 1, i) for index, i in enumerate(instances)],
    }
    dataset = COCO()
    dataset.dataset = content
    dataset.createIndex()
    return dataset


def _annotation(index: int, instance: Instance) -> dict[str, Any]:
    mask: Any = {"size": list(instance.size), "counts": instance.counts}
    return {
        "id": index,
        "image_id": instance.image,
        "category_id": instance.label,
        "segmentation": mask,
        "area": float(rle.area(mask)),
        "iscrowd": int(instance.is_crowd),
        "score": instance.score,
    }
