"""Cut-outs on backgrounds: exact masks, disjoint splits, determinism, two objects, shortcuts."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from libragrad_lightning.audit.batches import unpack_batch
from libragrad_lightning.data import CutoutDataModule
from libragrad_lightning.data.scenes.composition import (
    Composition,
    SceneParts,
    compose_scene,
    place,
    random_square,
)
from libragrad_lightning.data.scenes.cutouts import Shares, deal, read_background, read_cutout

COLORS = {"apple": (200, 0, 0), "leaf": (0, 200, 0), "sea": (0, 0, 200)}


def disc(color, size=(40, 30)):
    """A disc of one color on transparent ground; red counts the files up."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    inside = (columns - size[0] / 2) ** 2 + (rows - size[1] / 2) ** 2 < (min(size) / 2 - 2) ** 2
    pixels = np.zeros((size[1], size[0], 4), np.uint8)
    pixels[inside] = (*color, 255)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("cutouts")
    for name, color in COLORS.items():
        (root / "objects" / name).mkdir(parents=True)
        for number in range(6):
            shade = tuple(value + 9 * number if value else 0 for value in color)
            disc(shade).save(root / "objects" / name / f"{number}.png")
    (root / "backgrounds").mkdir()
    for number in range(7):
        gray = Image.new("RGB", (80, 60), (30 + 30 * number,) * 3)
        gray.save(root / "backgrounds" / f"{number}.png")
    return root


def module(folders, **kwargs):
    small = {"image_size": 32, "num_train": 40, "num_val": 24, "num_test": 16, "batch_size": 8}
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    paths = {"objects": str(folders / "objects"), "backgrounds": str(folders / "backgrounds")}
    return CutoutDataModule(**{**paths, **small, **plain, **kwargs})


def whole(loader):
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def built(data):
    data.setup("fit")
    return whole(data.val_dataloader())


def test_batches_are_what_the_audit_understands(folders):
    data = module(folders)
    data.setup("fit")
    assert data.class_names == ("apple", "leaf", "sea")
    batch = next(iter(data.train_dataloader()))
    samples = unpack_batch(batch)
    assert samples.images.shape == (8, 3, 32, 32)
    assert samples.images.dtype == torch.float32
    assert torch.equal(samples.labels, batch["label"])
    assert torch.equal(samples.masks, batch["mask"])
    assert batch["mask"].dtype == torch.bool
    assert batch["mask"].flatten(1).any(1).all()


def test_the_mask_is_where_the_object_shows(folders):
    batch = built(module(folders))
    channel = batch["image"].argmax(1)
    colored = batch["image"].amax(1) - batch["image"].amin(1)
    for row, label in enumerate(batch["label"]):
        mask = batch["mask"][row]
        # Objects are pure red, green or blue, backgrounds gray; only the rim is a mixture.
        assert (channel[row][mask] == label).all()
        rim = torch.nn.functional.max_pool2d(mask[None].float(), 3, 1, 1)[0] > 0
        assert (colored[row][~rim] < 0.05).all()


def test_masks_are_exact_where_no_pixel_is_mixed():
    pixels = np.zeros((6, 10, 4), np.uint8)
    pixels[1:5, 2:9] = (255, 128, 0, 255)
    pixels[2, 3] = 0
    cutout = Image.fromarray(pixels[1:5, 2:9])
    layer = place(cutout, 7, (0, 7), (1.0, 1.0), np.random.default_rng(0))
    rows = np.flatnonzero(layer[..., 3].any(1))
    np.testing.assert_array_equal(layer[rows[0] : rows[0] + 4], pixels[1:5, 2:9])
    assert len(rows) == 4


def test_pixels_without_alpha_show_the_background_unchanged():
    photograph = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8))
    parts = SceneParts([[disc((250, 0, 0))]], [photograph])
    composition = Composition(24, 1, (0.5, 0.9), 0.0)
    scene = compose_scene(parts, composition, np.random.default_rng(3))
    # The same draws, without the object.
    rng = np.random.default_rng(3)
    rng.choice(1, 1, replace=False)
    rng.integers(1)
    background = random_square(photograph, 24, rng)
    mask = scene.objects[0].mask
    grown = torch.nn.functional.max_pool2d(torch.tensor(mask)[None].float(), 3, 1, 1)[0] > 0
    np.testing.assert_array_equal(scene.image[~grown.numpy()], background[~grown.numpy()])
    assert (scene.image[mask] != background[mask]).any(-1).mean() > 0.99


@pytest.mark.parametrize("shares", [{}, {"val_share": 0.2, "test_share": 0.3}])
def test_no_object_and_no_background_is_in_two_splits(folders, shares):
    data = module(folders, **shares)
    files = {split: set(data.files(split)) for split in ("train", "val", "test")}
    everything = set(folders.rglob("*.png"))
    assert set().union(*files.values()) == everything
    assert sum(map(len, files.values())) == len(everything)
    for split in ("train", "val"):
        assert {path.parent.name for path in files[split]} == {*COLORS, "backgrounds"}
    assert bool(files["test"]) == bool(shares)


def test_scenes_show_the_objects_and_backgrounds_of_their_split_only(folders):
    data = module(folders, num_train=200, object_size=(0.9, 1.0))
    data.setup("fit")
    for split, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader())):
        batch = whole(loader)
        bytes_ = (batch["image"] * 255).round().long()
        shown = {
            (int(label), int(image[label][mask].median()))
            for image, label, mask in zip(bytes_, batch["label"], batch["mask"], strict=True)
        }
        corner = {int(image[0, 0, 0]) for image in bytes_ if image[:, 0, 0].unique().numel() == 1}
        names = {(path.parent.name, int(path.stem)) for path in data.files(split)}
        allowed = {30 + 30 * number for name, number in names if name == "backgrounds"}
        assert corner <= allowed
        shades = {
            (list(COLORS).index(name), 200 + 9 * number) for name, number in names if name in COLORS
        }
        assert shown <= shades


def test_the_seeds_decide(folders):
    first, again = built(module(folders)), built(module(folders))
    assert all(torch.equal(first[key], again[key]) for key in first)
    other_seed = module(folders, seed=1)
    assert torch.equal(built(other_seed)["image"], first["image"])
    base = module(folders)
    base.setup("fit")
    trains = [whole(data.train_dataloader())["image"].sort(0)[0] for data in (other_seed, base)]
    assert not torch.equal(*trains)
    other_split = module(folders, split_seed=1)
    assert set(other_split.files("val")) != set(base.files("val"))
    assert not torch.equal(built(other_split)["image"], first["image"])


def test_a_scene_is_the_same_whenever_it_is_asked_for(folders):
    dataset = module(folders).build("train")
    last = dataset[39]["image"]
    for index in (3, 0):
        dataset[index]
    assert torch.equal(dataset[39]["image"], last)
    assert len(dataset) == len(list(dataset)) == 40


def test_another_class_changes_no_split(folders):
    two, three = module(folders, classes=["leaf", "sea"]), module(folders)
    assert two.class_names == ("leaf", "sea")
    held_out = {path for path in three.files("val") if path.parent.name != "apple"}
    assert set(two.files("val")) == held_out


def test_two_objects_are_of_different_classes_and_side_by_side(folders):
    batch = built(module(folders, num_objects=2))
    assert (batch["label"] != batch["other_label"]).all()
    assert not (batch["mask"] & batch["other_mask"]).any()
    left = batch["mask"][..., :16].flatten(1).any(1)
    assert torch.equal(left, ~batch["mask"][..., 16:].flatten(1).any(1))
    assert torch.equal(left, batch["other_mask"][..., 16:].flatten(1).any(1))
    assert 0 < left.float().mean() < 1
    channel = batch["image"].argmax(1)
    for prefix in ("", "other_"):
        for row, label in enumerate(batch[f"{prefix}label"]):
            assert (channel[row][batch[f"{prefix}mask"][row]] == label).all()


def test_classes_are_drawn_evenly():
    parts = SceneParts([[disc((9, 9, 9))] * 30, [disc((9, 9, 9))]], [Image.new("RGB", (9, 9))])
    composition = Composition(8, 1, (0.5, 1.0), 0.0)
    labels = [
        compose_scene(parts, composition, np.random.default_rng(seed)).objects[0].label
        for seed in range(300)
    ]
    assert 120 < sum(labels) < 180


def test_a_shortcut_colors_the_background_by_class(folders):
    with_cue = built(module(folders, shortcut=1.0, object_size=(0.2, 0.3)))
    corner = with_cue["image"][:, :, 0, 0]
    hues = {
        (label, tuple((color / color.max()).mul(100).round().tolist()))
        for label, color in zip(with_cue["label"].tolist(), corner, strict=True)
        if color.max() > 0.3
    }
    assert {label for label, _ in hues} == {0, 1, 2}
    strongest = {
        label: {color.index(100.0) for x, color in hues if x == label} for label, _ in hues
    }
    assert all(len(channels) == 1 for channels in strongest.values())
    assert len({*map(tuple, strongest.values())}) == 3


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(3, 90), st.integers(3, 90)),
    st.integers(4, 40),
    st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted),
    st.integers(0, 1000),
)
def test_objects_stay_within_their_half_of_the_frame(cutout_size, size, object_size, seed):
    cutout = Image.new("RGBA", cutout_size, (9, 9, 9, 255))
    span = (size // 2, size // 2)
    layer = place(cutout, size, span, tuple(object_size), np.random.default_rng(seed))
    covered = np.argwhere(layer[..., 3] > 0)
    assert layer.shape == (size, size, 4)
    assert len(covered)
    assert covered[:, 1].min() >= size // 2
    largest = max(
        np.ptp(covered[:, 1]) / (size // 2) if size > 3 else 0, np.ptp(covered[:, 0]) / size
    )
    assert largest <= object_size[1] + 1 / size


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 60),
    st.floats(0.05, 0.45),
    st.sampled_from([0.0, 0.1, 0.4]),
    st.integers(0, 99),
)
def test_dealing_is_a_partition(count, val, test, seed):
    try:
        dealt = deal(range(count), "name", Shares(val, test, seed))
    except ValueError:
        assert count < 5
        return
    assert sorted(chain(*dealt.values())) == list(range(count))
    assert len(dealt["val"]) == max(1, round(val * count))
    assert bool(dealt["test"]) == (test > 0)


def test_cutouts_are_trimmed_and_no_larger_than_needed(tmp_path):
    picture = Image.new("RGBA", (300, 200))
    picture.paste((9, 9, 9, 255), (40, 50, 240, 150))
    picture.paste((9, 9, 9, 127), (240, 50, 260, 150))
    picture.save(tmp_path / "big.png")
    assert read_cutout(tmp_path / "big.png", 500).size == (200, 100)
    assert read_cutout(tmp_path / "big.png", 50).size == (50, 25)


def test_palette_pictures_are_cutouts_too(tmp_path):
    picture = Image.new("P", (8, 8))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(1, (2, 2, 6, 6))
    picture.save(tmp_path / "palette.png", transparency=0)
    cutout = read_cutout(tmp_path / "palette.png", 8)
    assert cutout.size == (4, 4)
    assert cutout.getpixel((0, 0)) == (0, 0, 255, 255)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_backgrounds_are_shrunk_but_never_enlarged(tmp_path, suffix):
    Image.new("RGB", (900, 600)).save(tmp_path / f"a.{suffix}")
    assert read_background(tmp_path / f"a.{suffix}", 100).size == (150, 100)
    assert read_background(tmp_path / f"a.{suffix}", 700).size == (900, 600)


def test_backgrounds_and_cutouts_come_out_upright(tmp_path):
    photograph = np.zeros((80, 40, 3), np.uint8)
    photograph[:40] = 250
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(photograph)))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    background = np.asarray(read_background(tmp_path / "a.jpg", 20)).astype(int)
    assert background.shape == (40, 20, 3)
    np.testing.assert_allclose(background[:18], 250, atol=3)
    np.testing.assert_allclose(background[22:], 0, atol=3)
    cutout = stored.convert("RGBA")
    cutout.putpixel((0, 0), (0, 0, 0, 0))
    cutout.save(tmp_path / "a.png", exif=exif)
    assert read_cutout(tmp_path / "a.png", 100).size == (40, 80)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"object_size": (0.8, 0.4)}, "change object_size"),
        ({"object_size": (0.0, 0.4)}, "change object_size"),
        ({"num_objects": 3}, "1 or 2 objects, not 3; change num_objects"),
        ({"shortcut": 1.5}, "shortcut must lie between 0 and 1"),
        ({"val_share": 0.0}, "change val_share or test_share"),
        ({"val_share": 0.5, "test_share": 0.5}, "change val_share or test_share"),
        ({"val_share": 0.95}, "'apple' has 6 pictures.*none left for training"),
        ({"classes": ["apple", "pear"]}, "it has no pear; change objects or classes"),
        ({"classes": ["apple"], "num_objects": 2}, "need 2 classes"),
        (
            {"objects": "nowhere"},
            "There is no folder nowhere; change objects.*cutout_scenes.photographs",
        ),
        ({"backgrounds": "nowhere"}, "no folder nowhere; change backgrounds"),
    ],
)
def test_impossible_arguments_are_named(folders, kwargs, message):
    with pytest.raises(ValueError, match=message):
        module(folders, **kwargs)


def test_a_test_needs_a_share(folders):
    with pytest.raises(ValueError, match="set test_share above 0"):
        module(folders).setup("test")
    data = module(folders, test_share=0.2)
    data.setup("test")
    assert len(whole(data.test_dataloader())["label"]) == 16


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("RGB", (9, 9)), "has no alpha channel"),
        (Image.new("RGBA", (9, 9)), "is transparent everywhere"),
        (Image.new("RGBA", (9, 9), (1, 2, 3, 255)), "is opaque everywhere"),
    ],
)
def test_pictures_that_are_no_cutouts_are_named(tmp_path, picture, message):
    path = Path(tmp_path, "odd.png")
    picture.save(path)
    with pytest.raises(ValueError, match=f"odd.png {message}"):
        read_cutout(path, 9)
    (tmp_path / "class").mkdir()
    with pytest.raises(ValueError, match="class holds no picture; change objects"):
        CutoutDataModule(str(tmp_path), str(tmp_path))


def test_a_scene_tells_which_cutout_it_shows(folders):
    data = module(folders, num_objects=2, num_val=12)
    scenes = data.build("val")
    # `disc` made the files of a class in rising shades, and `deal` chose some of them.
    held_out = data.files("val")
    for index in range(12):
        scene, sample = scenes.scene(index), scenes[index]
        for placed, prefix in zip(scene.objects, ("", "other_"), strict=True):
            assert placed.label == sample[f"{prefix}label"]
            of_class = [f for f in held_out if f.parent.name == data.class_names[placed.label]]
            shade = 9 * int(of_class[placed.number].stem)
            color = [v + shade if v else 0 for v in COLORS[data.class_names[placed.label]]]
            assert abs(np.median(scene.image[placed.mask], axis=0) - color).max() < 4.5
    with pytest.raises(IndexError, match="There are 12 scenes"):
        scenes.scene(12)
