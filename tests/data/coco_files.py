"""Small data sets in COCO's form, and their masks."""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as mask_api

from libragrad_lightning.data import CocoDataModule, CocoTogetherDataModule
from libragrad_lightning.data.coco_annotations import read_annotations
from libragrad_lightning.data.coco_masks import class_mask

HEIGHT, WIDTH = 60, 80
CATEGORIES = [
    {"id": 1, "name": "person"},
    {"id": 22, "name": "elephant"},
    {"id": 24, "name": "zebra"},
]


def box(left, top, width, height):
    """A rectangle as COCO's polygon."""
    right, bottom = left + width, top + height
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(mask):
    """Uncompressed RLE, as COCO stores crowds: column by column, beginning with zeros."""
    flat = np.asarray(mask).ravel(order="F").astype(int)
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def annotation(number, image, category, segmentation, crowd=0):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": crowd,
    }


def write(root, annotations, images=(1, 2), name="val2017"):
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    listed = [
        {"id": number, "file_name": f"{number:012}.jpg", "height": HEIGHT, "width": WIDTH}
        for number in images
    ]
    for entry in listed:
        Image.new("RGB", (WIDTH, HEIGHT), (9, 9, 9)).save(root / name / entry["file_name"])
    path = root / "annotations" / f"instances_{name}.json"
    content = {"images": listed, "categories": CATEGORIES, "annotations": annotations}
    path.write_text(json.dumps(content))
    return path


def ours(path, image, category):
    annotations = read_annotations(path)
    (listed,) = [one for one in annotations.images if one.id == image]
    name = next(one["name"] for one in CATEGORIES if one["id"] == category)
    return class_mask(listed, annotations.by_category(listed)[name])


def random_mask(seed):
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.3


def compressed(mask):
    encoded = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def coco_module(root, **kwargs):
    return CocoDataModule(str(root), "test_vit", image_size=64, **kwargs)


def zebra_and_elephant(first, zebra, elephant, image=1):
    return [annotation(first, image, 24, zebra), annotation(first + 1, image, 22, elephant)]


def together(root, **kwargs):
    return CocoTogetherDataModule(
        str(root), model_name="test_vit", image_size=64, split_name="val2017", **kwargs
    )
