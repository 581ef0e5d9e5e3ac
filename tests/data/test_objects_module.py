"""Which object a scene shows: classes, fresh scenes, questions about scenes with two objects."""

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from libragrad_lightning.audit.batches import unpack_batch
from libragrad_lightning.data import ObjectsDataModule
from libragrad_lightning.data.scenes.composition import Variation, varied

HUES = {"first": (200, 0, 0), "second": (0, 200, 0), "third": (0, 0, 200)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three folders of two bars each, a broad one and a slender one, and one more in each."""
    root = tmp_path_factory.mktemp("objects")
    for name, color in HUES.items():
        (root / "objects" / name).mkdir(parents=True)
        for number, width in enumerate((30, 10, 20)):
            bar = Image.new("RGBA", (50, 50))
            bar.paste((*color, 255), (5, 5, 5 + width, 45))
            bar.save(root / "objects" / name / f"bar_{number}.png")
    (root / "backgrounds").mkdir()
    for number in range(10):
        gray = Image.new("RGB", (80, 60), (20 * number,) * 3)
        gray.save(root / "backgrounds" / f"{number}.png")
    return root


def module(folders, **kwargs):
    small = {"image_size": 32, "num_train": 20, "num_val": 12, "num_pairs": 6, "batch_size": 8}
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "per_folder": 2}
    paths = {"objects": str(folders / "objects"), "backgrounds": str(folders / "backgrounds")}
    return ObjectsDataModule(**{**paths, **small, **plain, **kwargs})


def whole(loader):
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def test_the_first_cutouts_of_every_folder_are_classes(folders):
    data = module(folders)
    assert data.class_names == ("bar 0", "bar 1") * 3
    assert [(p.parent.name, p.name) for p in data.objects][:3] == [
        ("first", "bar_0.png"),
        ("first", "bar_1.png"),
        ("second", "bar_0.png"),
    ]


def test_a_scene_shows_the_object_of_its_label(folders):
    train = module(folders, brightness=0.0).build("train")
    for sample in (train[i] for i in range(20)):
        hue = sample["image"][:, sample["mask"]].mean(1).argmax()
        assert int(sample["label"]) // 2 == int(hue)
        assert sample["mask"].any()


def test_scenes_of_training_are_new_in_every_epoch_and_come_again_with_the_seed(folders):
    def epochs():
        L.seed_everything(3, verbose=False)
        data = module(folders)
        data.setup("fit")
        return [whole(data.train_dataloader())["image"] for _ in range(2)]

    first, second = epochs()
    assert not torch.equal(first.sort(0).values, second.sort(0).values)
    again = epochs()
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, whole_training(module(folders, seed=1)))


def whole_training(data):
    L.seed_everything(3, verbose=False)
    data.setup("fit")
    return whole(data.train_dataloader())["image"]


def test_scenes_of_validation_are_always_the_same_on_backgrounds_of_their_own(folders):
    data, other = module(folders), module(folders, seed=1)
    for one in (data, other):
        one.setup("fit")
    found, expected = (whole(d.val_dataloader()[0])["image"] for d in (data, other))
    assert torch.equal(found, expected)
    assert len(data.backgrounds["val"]) == 3
    assert not set(data.backgrounds["val"]) & set(data.backgrounds["train"])
    # Every background is one gray, and half of a scene at least shows it.
    grays = {round(255 * float(image.median())) for image in found}
    assert grays <= {20 * int(p.stem) for p in data.backgrounds["val"]}
    assert not torch.equal(data.build("test")[0]["image"], data.build("val")[0]["image"])


def test_scenes_with_two_objects_are_asked_for_one_and_then_for_the_other(folders):
    data = module(folders)
    data.setup("validate")
    batch = whole(data.val_dataloader()[1])
    assert len(batch["image"]) == 12
    first, second = ({k: v[i::2] for k, v in batch.items()} for i in (0, 1))
    assert torch.equal(first["image"], second["image"])
    for name in ("label", "mask"):
        assert torch.equal(first[name], second[f"other_{name}"])
        assert torch.equal(second[name], first[f"other_{name}"])
    assert (first["label"] != second["label"]).all()
    assert not (first["mask"] & second["mask"]).any()
    samples = unpack_batch(batch)
    assert torch.equal(samples.labels, batch["label"])
    assert torch.equal(samples.masks, batch["mask"])
    assert torch.equal(samples.other_masks, batch["other_mask"])


def test_objects_are_turned_lit_and_mirrored():
    pixels = np.zeros((20, 40, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 100, 255
    pixels[:, :10, 0] = 200
    cutout = Image.fromarray(pixels)
    rng = np.random.default_rng(0)
    assert varied(cutout, None, rng) is cutout
    mirrored, seen = set(), []
    for _ in range(20):
        same_angle = np.asarray(varied(cutout, Variation(0.0, 0.5), rng))
        assert same_angle.shape == pixels.shape
        mirrored.add(bool(same_angle[0, 0, 0] > same_angle[0, -1, 0]))
        seen.append(int(same_angle[..., 0].max()))
        turned = varied(cutout, Variation(25.0, 0.0), rng)
        assert 20 <= turned.height <= 36
        assert turned.getchannel("A").getbbox() == (0, 0, *turned.size)
    assert mirrored == {True, False}
    assert 100 <= min(seen) < 150
    assert 220 < max(seen) <= 255


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"per_folder": 4}, r"first 4 cut-outs of each of 3 folders, of which first \(3\)"),
        ({"per_folder": 0}, "change per_folder or objects"),
        ({"rotation": 200.0}, "rotation must lie between 0 and 180"),
        ({"brightness": -0.1}, "brightness must lie between 0 and 1"),
        ({"object_size": (0.7, 0.3)}, "change object_size"),
        ({"pair_size": (0.7, 1.3)}, "change pair_size"),
        ({"val_share": 0.0}, "change val_share"),
        ({"val_share": 0.99}, "none left for training"),
        ({"objects": "nowhere"}, "There is no folder nowhere; change objects"),
    ],
)
def test_what_cannot_be_composed_is_refused(folders, argument, message):
    with pytest.raises(ValueError, match=message):
        module(folders, **argument)
