"""ImageNet-S: masks of red + 256 * green, the 5 % rule, and ImageNet's labels."""

import numpy as np
import pytest
import torch
from PIL import Image

from libragrad_lightning.data import ImageNetSDataModule
from libragrad_lightning.data.imagenet import imagenet_indices
from libragrad_lightning.data.imagenet_s import largest_class, read_class_map

SYNSETS = sorted(imagenet_indices())[:919]


def save_map(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.stack([values % 256, values // 256, np.zeros_like(values)], -1)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def add(root, number, name, values):
    """Add an image and its mask to the folder of class `number`."""
    synset = SYNSETS[number - 1]
    save_map(root / "validation-segmentation" / synset / f"{name}.png", values)
    (root / "validation" / synset).mkdir(parents=True, exist_ok=True)
    picture = np.stack([values % 200] * 3, -1).astype(np.uint8)
    Image.fromarray(picture).save(root / "validation" / synset / f"{name}.JPEG")


@pytest.fixture
def root(tmp_path):
    for synset in SYNSETS:
        (tmp_path / "validation-segmentation" / synset).mkdir(parents=True)
    return tmp_path


def module(root, **kwargs):
    return ImageNetSDataModule(str(root), "test_vit", image_size=64, **kwargs)


def square(value, side, others=0):
    """A 100 x 100 map whose middle square has a class."""
    values = np.full((100, 100), others)
    start = 50 - side // 2
    values[start : start + side, start : start + side] = value
    return values


def test_class_numbers_are_red_plus_256_green(tmp_path):
    values = np.array([[0, 1, 255], [256, 919, 1000]])
    save_map(tmp_path / "map.png", values)
    np.testing.assert_array_equal(read_class_map(tmp_path / "map.png"), values)


def test_the_largest_class_is_explained_and_ignored_pixels_are_told_apart(root):
    values = square(700, 60, others=1000)
    values[:30] = 3
    add(root, 3, "a", values)
    (sample,) = list(module(root).build("val"))
    assert sample["label"] == imagenet_indices()[SYNSETS[699]]
    cropped = module(root)._transform.masks(torch.from_numpy(values)[None])[0]
    assert torch.equal(sample["mask"], cropped == 700)
    assert torch.equal(sample["ignore"], cropped == 1000)
    assert (cropped == 3).any()
    with pytest.raises(ValueError, match="has no training images; run `libragrad validate`"):
        module(root).build("train")


def test_classes_below_the_share_of_the_crop_are_left_out(root):
    # test_vit's crop is smaller than the image, so a square's share grows in it.
    for side in (15, 21, 25, 30):
        add(root, side, str(side), square(side, side))
    shares = {
        side: module(root)._transform.masks(torch.from_numpy(square(1, side))[None]).double().mean()
        for side in (15, 21, 25, 30)
    }
    kept = [
        imagenet_indices()[SYNSETS[side - 1]] for side, share in shares.items() if share >= 0.05
    ]
    assert 0 < len(kept) < 4
    assert sorted(int(sample["label"]) for sample in module(root).build("val")) == kept
    assert len(module(root, min_share=0.0).build("val")) == 4


def test_other_and_ignored_pixels_are_no_class(root):
    assert largest_class(np.array([0, 0, 0, 1000, 1000, 5])) == (5, 1 / 6)
    assert largest_class(np.array([0, 1000])) == (None, 0)
    add(root, 9, "empty", square(1000, 50))
    assert len(module(root, min_share=0.0).build("val")) == 0


def test_images_are_drawn_before_any_is_left_out(root):
    for number in range(1, 11):
        add(root, number, "a", square(number, 60 if number % 2 else 2))
    drawn = np.random.default_rng(42).permutation(10)[:4] + 1
    expected = [number - 1 for number in drawn if number % 2]
    found = [int(sample["label"]) for sample in module(root, max_images=4).build("val")]
    assert found == [imagenet_indices()[SYNSETS[index]] for index in expected]


def test_an_incomplete_or_missing_data_set_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no masks in .*validation-segmentation; set root"):
        module(tmp_path).build("val")
    add(tmp_path, 1, "a", square(2, 60))
    with pytest.raises(ValueError, match=r"a.png holds class 2, but there are 1 class folders"):
        module(tmp_path).build("val")
    add(tmp_path, 1, "a", square(1, 60))
    (tmp_path / "validation" / SYNSETS[0] / "a.JPEG").unlink()
    with pytest.raises(ValueError, match=r"a.JPEG is missing"):
        list(module(tmp_path).build("val"))
