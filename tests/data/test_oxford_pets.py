"""Oxford-IIIT Pet: lists, breeds, and trimaps turned into masks."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import OxfordIIITPet

from libragrad_lightning.audit.batches import unpack_batch
from libragrad_lightning.data import OxfordPetsDataModule
from libragrad_lightning.data.oxford_pets import list_pets, read_pet

NAMES = {"Abyssinian_1": 1, "Bengal_2": 6, "yorkshire_terrier_3": 37}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations" / "trimaps").mkdir(parents=True)
    for name in NAMES:
        trimap = np.full((64, 64), 2, np.uint8)
        trimap[8:56, 8:56] = 3
        trimap[16:48, 16:48] = 1
        Image.fromarray(trimap).save(tmp_path / "annotations" / "trimaps" / f"{name}.png")
        Image.fromarray(np.stack([trimap * 80] * 3, -1)).save(tmp_path / "images" / f"{name}.jpg")
    lines = [f"{name} {breed} 1 1" for name, breed in NAMES.items()]
    (tmp_path / "annotations" / "trainval.txt").write_text("#Image CLASS-ID\n" + lines[0] + "\n")
    (tmp_path / "annotations" / "test.txt").write_text("\n".join(lines[1:]) + "\n")
    return tmp_path


def module(root, **kwargs):
    return OxfordPetsDataModule(str(root), "test_vit", image_size=64, **kwargs)


def test_trimaps_become_masks_and_ignored_borders(root):
    data = module(root)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert batch["label"].tolist() == [5, 36]
    assert [data.class_names[label] for label in (4, 5, 36)] == ["4", "Bengal", "yorkshire terrier"]
    expected = torch.zeros(64, 64, dtype=torch.long)
    expected[8:56, 8:56], expected[16:48, 16:48] = 2, 1
    # test_vit crops 95 % of the image, so it is enlarged: compare the geometry's own values.
    geometry = data._transform.masks(expected[None])[0]
    for row in range(2):
        assert torch.equal(batch["mask"][row], geometry == 1)
        assert torch.equal(batch["ignore"][row], geometry == 2)
    assert unpack_batch(batch).masks.equal(batch["mask"])


def test_the_lists_say_what_is_in_a_split(root):
    assert [int(x["label"]) for x in module(root).build("train")] == [0]
    assert [int(x["label"]) for x in module(root, evaluate_train=True).build("test")] == [0]
    assert len(module(root, max_images=1).build("val")) == 1


def test_lists_and_trimaps_are_those_that_torchvision_reads(root, tmp_path_factory):
    (root / "annotations" / "trainval.txt").write_text("Abyssinian_1 1 1 1\n")
    there = tmp_path_factory.mktemp("torchvision") / "oxford-iiit-pet"
    there.symlink_to(root)
    for split in ("trainval", "test"):
        reference = OxfordIIITPet(there.parent, split, ("category", "segmentation"))
        files = list_pets(root, split)
        assert len(files) == len(reference) > 0
        for file, (image, (label, trimap)) in zip(files, reference, strict=True):
            found = read_pet(file)
            assert found.label == label
            np.testing.assert_array_equal(found.image, image)
            np.testing.assert_array_equal(found.mask, np.asarray(trimap) == 1)
            np.testing.assert_array_equal(found.ignore, np.asarray(trimap) == 3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: (r / "annotations/test.txt").unlink(), "no .*test.txt; set root"),
        (
            lambda r: (r / "annotations/test.txt").write_text("Bengal_2 38 1 1"),
            "'Bengal_2 38 1 1' of .* has no class of 1 to 37",
        ),
        (
            lambda r: (r / "annotations/test.txt").write_text("Bengal_2"),
            "'Bengal_2' of .* has no class of 1 to 37",
        ),
        (lambda r: (r / "images/Bengal_2.jpg").unlink(), "image .*Bengal_2.jpg is missing"),
        (
            lambda r: (r / "annotations/trimaps/Bengal_2.png").unlink(),
            "trimap .*Bengal_2.png is missing",
        ),
        (
            lambda r: Image.new("L", (64, 64), 0).save(r / "annotations/trimaps/Bengal_2.png"),
            "Bengal_2.png holds other values than 1",
        ),
        (
            lambda r: Image.new("L", (9, 9), 1).save(r / "annotations/trimaps/Bengal_2.png"),
            "Bengal_2.png has 9 x 9 pixels",
        ),
    ],
)
def test_damage_is_named(root, damage, message):
    damage(root)
    with pytest.raises(ValueError, match=message):
        list(module(root).build("val"))
