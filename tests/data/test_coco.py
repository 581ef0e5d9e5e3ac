"""COCO: masks as pycocotools draws them, the zebra and elephant protocol, deep gray."""

import numpy as np
import pytest
import torch
from coco_files import (
    HEIGHT,
    WIDTH,
    annotation,
    box,
    coco_module,
    compressed,
    ours,
    random_mask,
    runs,
    together,
    write,
    zebra_and_elephant,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from libragrad_lightning.audit.batches import unpack_batch
from libragrad_lightning.data.coco_annotations import read_annotations
from libragrad_lightning.data.coco_masks import class_area, read_runs


def reference(path, image, category):
    """The union of pycocotools' own masks of single annotations."""
    coco = COCO(str(path))
    found = coco.loadAnns(coco.getAnnIds(imgIds=[image], catIds=[category]))
    return np.any([coco.annToMask(one) for one in found], axis=0)


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
    assert class_area(image, annotations.by_category(image)["elephant"]) == expected.sum()


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


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_a_compressed_code_is_read_as_pycocotools_reads_it(seed, density):
    mask = np.random.default_rng(seed).random((HEIGHT, WIDTH)) < density
    assert read_runs(compressed(mask)["counts"]) == runs(mask)["counts"]


def test_deep_gray_is_read_alike_in_both_splits(tmp_path):
    for name, highest in (("train2017", 4000), ("val2017", 900)):
        write(tmp_path, [annotation(1, 1, 24, box(0, 0, 80, 60))], images=(1,), name=name)
        values = np.full((HEIGHT, WIDTH), highest, np.uint16)
        Image.fromarray(values).save(tmp_path / name / "000000000001.png")
        path = tmp_path / "annotations" / f"instances_{name}.json"
        path.write_text(path.read_text().replace(".jpg", ".png"))
    data = coco_module(tmp_path)
    (sample,) = list(data.build("val"))
    share = sample["image"][0, 0, 0] * data.image_std[0] + data.image_mean[0]
    assert share == pytest.approx(round(900 / 4095 * 255) / 255)
    (own,) = list(coco_module(tmp_path, gray_bits=10).build("val"))
    share = own["image"][0, 0, 0] * data.image_std[0] + data.image_mean[0]
    assert share == pytest.approx(round(900 / 1023 * 255) / 255)
    (train,) = list(data.build("train"))
    assert train["image"].max() > sample["image"].max()
    with pytest.raises(ValueError, match="gray_bits must be None or 1 to 16, but is 32; change it"):
        coco_module(tmp_path, gray_bits=32)
