"""Image folders: the labels of ImageNet whatever folders there are, a user's own, masks."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from libragrad_lightning.audit.batches import unpack_batch
from libragrad_lightning.data import ImageFolderDataModule
from libragrad_lightning.data.image_folder import list_images

SYNSETS = {"n02391049": 340, "n02504458": 386, "n01440764": 0}


def save(path, color=(9, 9, 9), size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


@pytest.fixture
def imagenet(tmp_path):
    for number, synset in enumerate(SYNSETS):
        for image in range(4):
            save(tmp_path / "val" / synset / f"ILSVRC2012_val_{image}{number}.JPEG", (image, 0, 0))
    return tmp_path


def module(root, **kwargs):
    return ImageFolderDataModule(str(root), "test_vit", **{"image_size": 32, **kwargs})


def labels(dataset):
    return [int(sample["label"]) for sample in dataset]


def test_labels_are_imagenets_however_many_classes_there_are(imagenet):
    assert (
        labels(module(imagenet, imagenet_labels=True).build("val"))
        == [0] * 4 + [340] * 4 + [386] * 4
    )
    assert labels(module(imagenet).build("test")) == [0] * 4 + [1] * 4 + [2] * 4


def test_class_names_are_those_of_the_labels(imagenet):
    data = module(imagenet, imagenet_labels=True)
    assert len(data.class_names) == 1000
    names = [data.class_names[index] for index in SYNSETS.values()]
    assert names == ["zebra", "African elephant", "tench"]
    own = module(imagenet)
    own.setup("validate")
    assert own.class_names == tuple(sorted(SYNSETS))


def test_training_folders_number_the_classes(imagenet):
    for name in ("n00000001", *SYNSETS):
        save(imagenet / "train" / name / "a.png")
    data = module(imagenet)
    assert labels(data.build("train")) == [0, 1, 2, 3]
    assert labels(data.build("val")) == [1] * 4 + [2] * 4 + [3] * 4


def test_a_draw_is_the_permutation_of_its_seed(imagenet):
    whole = labels(module(imagenet).build("val"))
    drawn = labels(module(imagenet, max_images=5, subset_seed=7).build("val"))
    assert drawn == [whole[i] for i in np.random.default_rng(7).permutation(12)[:5]]
    assert labels(module(imagenet, max_images=500).build("val")) != whole
    assert sorted(labels(module(imagenet, max_images=500).build("val"))) == whole


def test_gray_and_palette_files_become_rgb_and_batches_suit_the_audit(tmp_path):
    save(tmp_path / "val" / "a" / "gray.png", 7, mode="L")
    save(tmp_path / "val" / "a" / "palette.png", 0, mode="P")
    save(tmp_path / "val" / "b" / "alpha.png", (1, 2, 3, 4), mode="RGBA")
    (tmp_path / "val" / "b" / "notes.txt").write_text("no image")
    data = module(tmp_path)
    data.setup("validate")
    samples = unpack_batch(next(iter(data.val_dataloader())))
    assert samples.images.shape == (3, 3, 32, 32)
    assert samples.labels.tolist() == [0, 0, 1]
    assert samples.masks is None


def test_files_and_labels_are_those_of_torchvisions_image_folder(imagenet):
    save(imagenet / "val" / "n02391049" / "deeper" / "z.png")
    found = list_images(imagenet / "val", {name: i for i, name in enumerate(sorted(SYNSETS))}, None)
    reference = ImageFolder(imagenet / "val").samples
    assert [(str(file.path), file.label) for file in found] == reference
    assert any(file.path.parent.name == "deeper" for file in found)


def test_masks_lie_in_a_tree_beside(tmp_path):
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, 32:] = 255
    for part in ("val", "val_masks"):
        (tmp_path / part / "a").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "val" / "a" / "x.png")
    Image.fromarray(picture[..., 0] // 255).save(tmp_path / "val_masks" / "a" / "x.png")
    (sample,) = list(module(tmp_path, masks="_masks").build("val"))
    assert torch.equal(sample["mask"], sample["image"][0] > 0)
    assert sample["mask"].float().mean() == 0.5


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"val_folder": "test"}, "test holds no class folders; change root"),
        ({"imagenet_labels": True}, "named 'cat', which is no synset"),
        ({"masks": "_masks"}, "x.png is missing; put it back"),
    ],
)
def test_folders_without_what_they_should_hold_are_named(tmp_path, kwargs, message):
    save(tmp_path / "val" / "cat" / "x.png")
    with pytest.raises(ValueError, match=message):
        list(module(tmp_path, **kwargs).build("val"))


def test_damaged_and_odd_files_are_named(tmp_path):
    save(tmp_path / "val" / "cat" / "x.png")
    save(tmp_path / "val_masks" / "cat" / "x.png", size=(5, 5))
    with pytest.raises(ValueError, match=r"x.png has 5 x 5 pixels, but its image has 40 x 30"):
        list(module(tmp_path, masks="_masks").build("val"))
    (tmp_path / "val" / "cat" / "x.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"x.png is not an image"):
        list(module(tmp_path).build("val"))
    (tmp_path / "val" / "cat" / "x.png").unlink()
    with pytest.raises(ValueError, match="hold no image; change root"):
        module(tmp_path).build("val")
    save(tmp_path / "train" / "dog" / "x.png")
    with pytest.raises(ValueError, match=r"class folder cat of .* is not in .*train; rename it"):
        module(tmp_path).build("val")


def test_workers_read_the_same_batches(imagenet):
    data = [module(imagenet, num_workers=workers, batch_size=5) for workers in (0, 1)]
    for one in data:
        one.setup("validate")
    for first, second in zip(*(one.val_dataloader() for one in data), strict=True):
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["label"], second["label"])
