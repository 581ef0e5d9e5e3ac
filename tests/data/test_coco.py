"""COCO: masks as pycocotools draws them, faulty files, the zebra and elephant protocol."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from libragrad_lightning.callbacks.samples import unpack_batch
from PIL import Image
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from libragrad_lightning.data import CocoDataModule, CocoTogetherDataModule
from libragrad_lightning.data.coco_annotations import class_area, class_mask, read_annotations

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


def reference(path, image, category):
    """The union of pycocotools' own masks of single annotations."""
    coco = COCO(str(path))
    found = coco.loadAnns(coco.getAnnIds(imgIds=[image], catIds=[category]))
    return np.any([coco.annToMask(one) for one in found], axis=0)


def ours(path, image, category):
    annotations = read_annotations(path)
    (listed,) = [one for one in annotations.images if one.id == image]
    name = next(one["name"] for one in CATEGORIES if one["id"] == category)
    return class_mask(listed, annotations.of_category(listed, name))


def random_mask(seed):
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.3


def compressed(mask):
    encoded = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


coordinates = st.lists(st.floats(-5, WIDTH + 5, allow_nan=False), min_size=6, max_size=14).map(
    lambda values: values[: len(values) // 2 * 2]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(coordinates, min_size=1, max_size=3), st.lists(coordinates, max_size=2))
def test_polygons_are_drawn_as_pycocotools_draws_them(tmp_path_factory, first, second):
    annotations = [annotation(1, 1, 24, first)]
    annotations += [annotation(2 + i, 1, 24, [polygon]) for i, polygon in enumerate(second)]
    path = write(tmp_path_factory.mktemp("coco"), annotations)
    np.testing.assert_array_equal(ours(path, 1, 24), reference(path, 1, 24))


@pytest.mark.parametrize("first_pixel", [False, True])
def test_crowds_and_rles_are_drawn_as_pycocotools_draws_them(tmp_path, first_pixel):
    crowd, single = random_mask(0), random_mask(1)
    crowd[0, 0] = first_pixel
    path = write(
        tmp_path,
        [
            annotation(1, 2, 22, runs(crowd), crowd=1),
            annotation(2, 2, 22, compressed(single)),
            annotation(3, 2, 22, box(10, 10, 30, 20)),
            annotation(4, 2, 1, box(0, 0, 80, 60)),
            annotation(5, 1, 22, box(0, 0, 80, 60)),
        ],
    )
    mask = ours(path, 2, 22)
    np.testing.assert_array_equal(mask, reference(path, 2, 22))
    expected = crowd | single
    expected[10:30, 10:40] = True
    np.testing.assert_array_equal(mask, expected)
    annotations = read_annotations(path)
    image = annotations.images[1]
    assert class_area(image, annotations.of_category(image, "elephant")) == expected.sum()


def coco_module(root, **kwargs):
    return CocoDataModule(str(root), "test_vit", image_size=64, **kwargs)


def test_an_image_is_labelled_with_its_largest_class(tmp_path):
    write(
        tmp_path,
        [
            annotation(1, 1, 24, box(0, 0, 80, 30)),
            annotation(2, 1, 22, box(0, 30, 80, 20)),
            annotation(3, 1, 22, box(0, 30, 80, 20)),
            annotation(4, 2, 1, box(20, 20, 4, 4)),
        ],
        images=(1, 2, 3),
    )
    data = coco_module(tmp_path)
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    assert batch["label"].tolist() == [2]
    halves = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    halves[:, :30] = True
    assert torch.equal(batch["mask"], data._transform.masks(halves))
    assert unpack_batch(batch).masks.equal(batch["mask"])
    everything = coco_module(tmp_path, min_share=0.0, labels={"person": 7, "elephant": 386})
    assert [int(sample["label"]) for sample in everything.build("val")] == [386, 7]
    assert len(coco_module(tmp_path, train_name="val2017").build("train")) == 2


def zebra_and_elephant(first, zebra, elephant, image=1):
    return [annotation(first, image, 24, zebra), annotation(first + 1, image, 22, elephant)]


def together(root, **kwargs):
    return CocoTogetherDataModule(
        str(root), model_name="test_vit", image_size=64, split_name="val2017", **kwargs
    )


def test_each_image_with_both_classes_occurs_twice(tmp_path):
    separate = (box(0, 0, 40, 60), box(40, 0, 40, 60))
    lonely = [annotation(9, 2, 24, box(0, 0, 40, 60)), annotation(10, 2, 1, box(40, 0, 40, 60))]
    write(tmp_path, [*zebra_and_elephant(1, *separate), *lonely])
    with pytest.raises(ValueError, match="has no training images"):
        together(tmp_path).build("train")
    first, second = together(tmp_path).build("val")
    assert [int(first["label"]), int(second["label"])] == [340, 386]
    assert torch.equal(first["mask"], second["other_mask"])
    assert torch.equal(second["mask"], first["other_mask"])
    assert torch.equal(first["mask"], ~second["mask"])
    assert first["other_label"] == second["label"]
    assert first["mask"][:, :32].all()


@pytest.mark.parametrize(
    ("zebra", "elephant", "limits", "kept"),
    [
        # 240 of 4800 pixels are 5 %, which is not more than 5 %.
        (box(20, 0, 20, 60), box(44, 20, 12, 20), {}, False),
        (box(20, 0, 20, 60), box(44, 20, 12, 21), {}, True),
        # A smaller mask of 20 x 30 pixels, 14 or 15 of its columns within the larger one.
        (box(20, 0, 40, 60), box(46, 10, 20, 30), {}, True),
        (box(20, 0, 40, 60), box(45, 10, 20, 30), {}, False),
        (box(20, 0, 40, 60), box(45, 10, 20, 30), {"max_overlap": 0.75}, True),
        # At the left edge, which the square crop of the model cuts off.
        (box(0, 0, 8, 60), box(40, 0, 30, 60), {}, False),
        (box(0, 0, 8, 60), box(40, 0, 30, 60), {"min_crop_share": 0.0}, True),
    ],
)
def test_the_protocol_rejects_what_the_paper_rejects(tmp_path, zebra, elephant, limits, kept):
    write(tmp_path, zebra_and_elephant(1, zebra, elephant))
    if kept:
        assert len(together(tmp_path, **limits).build("val")) == 2
    else:
        with pytest.raises(ValueError, match="shows zebra and elephant as large and as far apart"):
            together(tmp_path, **limits).build("val")


GOOD = annotation(17, 1, 24, box(0, 0, 9, 9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 16}, "Annotation 16 of .* occurs twice"),
        ({"image_id": 5}, "Annotation 17 of .* has the image_id 5, which is not listed"),
        ({"category_id": 3}, "Annotation 17 of .* has the category_id 3, which is not listed"),
        ({"segmentation": []}, "Annotation 17 of .* has an empty segmentation"),
        ({"segmentation": None}, "Annotation 17 of .* has an empty segmentation"),
        ({"segmentation": [[]]}, "Annotation 17 of .* has a polygon that is not made of three"),
        ({"segmentation": [[1, 2, 3, 4]]}, "Annotation 17 of .* has a polygon that is not made of"),
        (
            {"segmentation": [[1] * 7]},
            "Annotation 17 of .* has a polygon that is not made of three",
        ),
        (
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": []}},
            "Annotation 17 of .* has an empty segmentation",
        ),
        (
            {"segmentation": {"size": [WIDTH, HEIGHT], "counts": [4800]}},
            r"Annotation 17 of .* has a mask of size \[80, 60\], unlike its image 1",
        ),
        (
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [4000, 900]}},
            "Annotation 17 of .* has runs for 4900 pixels, unlike its image 1",
        ),
    ],
)
def test_faulty_annotations_are_named_with_their_number(tmp_path, change, message):
    path = write(tmp_path, [annotation(16, 1, 24, box(0, 0, 9, 9)), GOOD | change])
    with pytest.raises(ValueError, match=message) as refusal:
        read_annotations(path)
    assert re.search(r"; mend or remove it\.$", str(refusal.value))


def test_missing_files_categories_and_keys_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no annotation file .*instances_val2017.json; change"):
        coco_module(tmp_path).build("val")
    path = write(tmp_path, [GOOD])
    with pytest.raises(ValueError, match=r"instances_val2017.json has no category dog; change lab"):
        coco_module(tmp_path, labels={"dog": 1}).build("val")
    with pytest.raises(ValueError, match="labels must name two categories"):
        together(tmp_path, labels={"dog": 1})
    (tmp_path / "val2017" / "000000000001.jpg").unlink()
    with pytest.raises(ValueError, match=r"Image 1 of the annotations is missing .*0001\.jpg"):
        coco_module(tmp_path).build("val")
    path.write_text('{"images": [{"id": 3}], "annotations": [], "categories": []}')
    with pytest.raises(ValueError, match=r"Image 3 of .* has no file_name, height, width; mend"):
        read_annotations(path)
    path.write_text('{"images": [], "annotations": []}')
    with pytest.raises(ValueError, match="has no categories; use COCO's instance annotations"):
        read_annotations(path)
    path.write_text("<html>")
    with pytest.raises(ValueError, match="is not JSON; fetch it again"):
        read_annotations(path)


def test_an_image_of_another_size_is_named(tmp_path):
    write(tmp_path, [annotation(1, 1, 24, box(0, 0, 80, 60))])
    Image.new("RGB", (9, 9)).save(tmp_path / "val2017" / "000000000001.jpg")
    with pytest.raises(ValueError, match=r"0001.jpg has 80 x 60 pixels, but its image has 9 x 9"):
        list(coco_module(tmp_path).build("val"))
