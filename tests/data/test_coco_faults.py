"""Faulty files in COCO's form: one sentence each, with the number and what to change."""

import json
import re

import pytest
from coco_files import (
    HEIGHT,
    WIDTH,
    annotation,
    box,
    coco_module,
    compressed,
    ours,
    random_mask,
    together,
    write,
)
from PIL import Image

from libragrad_lightning.data.coco_annotations import read_annotations

GOOD = annotation(17, 1, 24, box(0, 0, 9, 9))


EMPTY = "has an empty segmentation; draw its mask, or remove the annotation"
LISTS = r"; write each polygon as one list, \[\[x, y, x, y, \.\.\.\], \.\.\.\]"


def with_segmentation(segmentation):
    return {"segmentation": segmentation}


def with_runs(counts, size=(HEIGHT, WIDTH)):
    return with_segmentation({"size": list(size), "counts": counts})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_id": 5},
            "has the image_id 5, which is not listed; add it to images, or remove the annotation",
        ),
        ({"image_id": [1]}, r"has the image_id \[1\], which is not listed; add it to images, or"),
        (
            {"category_id": 3},
            "has the category_id 3, which is not listed; add it to categories, or",
        ),
        (with_segmentation([]), EMPTY),
        (with_segmentation(None), EMPTY),
        (with_segmentation("4800"), "has the segmentation '4800'" + LISTS + ", or as an RLE"),
        (
            with_segmentation([1, 2, 3, 4, 5, 6]),
            r"has a flat polygon \[1, 2, 3, 4, 5, 6\]" + LISTS,
        ),
        (
            with_segmentation([[1, 2], [3, 4], [5, 6]]),
            r"has a polygon of points \[1, 2\]" + LISTS,
        ),
        (
            with_segmentation([[[1, 2], [3, 4], [5, 6]]]),
            r"has a polygon of points \[\[1, 2\], \[3, 4\], \[5, 6\]\]" + LISTS,
        ),
        (
            with_segmentation([*box(0, 0, 9, 9), 7]),
            "has 7 among its polygons" + LISTS,
        ),
        (with_segmentation([[]]), "has a polygon of 0 numbers, .* three or more points; mend or"),
        (
            with_segmentation([*box(0, 0, 9, 9), [1, 2, 3, 4]]),
            "has a polygon of 4 numbers, which is not made of three or more points; mend or remove",
        ),
        (with_segmentation([[1] * 7]), "has a polygon of 7 numbers, which is not made of three or"),
        (
            with_segmentation([[1, 2, 3, 4, 5, "6"]]),
            r"has a polygon \[1, 2, 3, 4, 5, '6'\] with a value that is no coordinate; mend or",
        ),
        (
            with_segmentation([[1, 2, 3, 4, 5, float("nan")]]),
            r"has a polygon \[1, 2, 3, 4, 5, nan\] with a value that is no coordinate; mend or",
        ),
        (
            with_segmentation([[1, 2, 3, 4, 5, 1e30]]),
            r"has a polygon .*1e\+30\] with a value that is no coordinate; mend or",
        ),
        (with_runs([]), EMPTY),
        (
            with_runs([4800], (WIDTH, HEIGHT)),
            r"has a mask of size \[80, 60\], unlike its image 1 of \[60, 80\]; write size as "
            r"\[height, width\]",
        ),
        (
            with_runs([4800], (WIDTH, WIDTH)),
            r"has a mask of size \[80, 80\], unlike its image 1 of \[60, 80\]; mend or remove it",
        ),
        (with_segmentation({"counts": [4800]}), r"has a mask of size None, unlike its image 1"),
        (with_runs(4800), "has the counts 4800; mend or remove it"),
        (with_runs([4000, 900]), "has runs for 4900 pixels, unlike its image 1; mend or remove it"),
        (
            with_runs([4900, -100]),
            r"has the runs \[4900, -100\], unlike its image 1; mend or remove",
        ),
        (with_runs([4800.0]), r"has the runs \[4800\.0\], unlike its image 1; mend or remove it"),
        (with_runs([4800] + [0] * 4801), "has 4802 runs for 4800 pixels, unlike its image 1; mend"),
    ],
)
def test_faulty_annotations_are_named_with_their_number(tmp_path, change, message):
    path = write(tmp_path, [annotation(16, 1, 24, box(0, 0, 9, 9)), GOOD | change])
    pattern = rf"^Annotation 17 of {re.escape(str(path))} {message}.*\.$"
    with pytest.raises(ValueError, match=pattern):
        read_annotations(path)


def test_entries_without_a_number_of_their_own_are_named(tmp_path):
    path = write(tmp_path, [GOOD, GOOD])
    with pytest.raises(
        ValueError, match=r"^Annotation 17 of .* occurs twice; mend or remove it\.$"
    ):
        read_annotations(path)
    path = write(tmp_path, [GOOD, {key: GOOD[key] for key in GOOD if key != "id"}])
    with pytest.raises(ValueError, match=r"^Annotation entry 2 of .* has no number; give it an id"):
        read_annotations(path)
    path = write(tmp_path, [GOOD, 3])
    with pytest.raises(
        ValueError, match=r"^Annotation entry 2 of .* is 3 instead of an object; me"
    ):
        read_annotations(path)
    path = write(tmp_path, [GOOD], images=(1, 1))
    with pytest.raises(ValueError, match=r"^Image 1 of .* occurs twice; mend or remove it\.$"):
        read_annotations(path)


@pytest.mark.parametrize("damage", ["cut", "doubled", "strange", "broken off"])
def test_a_damaged_code_is_named_before_pycocotools_sees_it(tmp_path, damage):
    code = compressed(random_mask(0))["counts"]
    counts = {
        "cut": code[: len(code) // 2],
        "doubled": code * 2,
        "strange": code[:-1] + "é",
        "broken off": code + "o",
    }[damage]
    path = write(tmp_path, [GOOD | with_runs(counts)])
    with pytest.raises(
        ValueError, match=r"^Annotation 17 has counts that are no code of 60 x 80 pix"
    ):
        ours(path, 1, 24)


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
    path.write_text('[{"id": 3}]')
    with pytest.raises(
        ValueError, match=r"holds a list, not an object with images and annotations"
    ):
        read_annotations(path)
    path.write_text('{"images": [], "annotations": null, "categories": [{"id": 1}]}')
    with pytest.raises(ValueError, match=r"Category 1 of .* has no name; mend or remove it"):
        read_annotations(path)
    path.write_text('{"images": [], "annotations": null, "categories": []}')
    with pytest.raises(ValueError, match="has no list of its annotation entries; fetch it again"):
        read_annotations(path)
    image = {"id": 3, "file_name": "a.jpg", "height": "60", "width": 80}
    path.write_text(json.dumps({"images": [image], "annotations": [], "categories": []}))
    with pytest.raises(ValueError, match=r"Image 3 of .* has the height '60'; give it in pixels"):
        read_annotations(path)
    path.write_text("<html>")
    with pytest.raises(ValueError, match="is not JSON; fetch it again"):
        read_annotations(path)


def test_an_image_of_another_size_is_named(tmp_path):
    write(tmp_path, [annotation(1, 1, 24, box(0, 0, 80, 60))])
    Image.new("RGB", (9, 9)).save(tmp_path / "val2017" / "000000000001.jpg")
    with pytest.raises(ValueError, match=r"0001.jpg has 80 x 60 pixels, but its image has 9 x 9;"):
        list(coco_module(tmp_path).build("val"))


def test_annotations_of_the_stored_pixels_of_a_turned_photograph_are_named(tmp_path):
    write(tmp_path, [annotation(1, 1, 24, box(0, 0, 80, 60))])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 60)).save(tmp_path / "val2017" / "000000000001.jpg", exif=exif)
    with pytest.raises(ValueError, match=r"80 x 60 pixels, but .* 60 x 80, .* EXIF orientation"):
        list(coco_module(tmp_path).build("val"))
