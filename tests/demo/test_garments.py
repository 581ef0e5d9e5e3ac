"""The demonstration data: composites of garments on photographs, and the files they come from."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from build_demo_assets import (
    PHOTOGRAPHS,
    balanced_indices,
    quantize,
)
from libragrad_lightning import demo
from libragrad_lightning.data.batches import mirror_half
from libragrad_lightning.demo import PIXEL_MEAN, PIXEL_STD, GarmentsOnTextures
from libragrad_lightning.demo.compositing import (
    Garments,
    compose,
    load_backgrounds,
    load_garments,
)

ASSETS = Path(demo.__file__).parent / "assets"


def small_module(**kwargs):
    return GarmentsOnTextures(**{"num_train": 64, "num_val": 48, "num_test": 40} | kwargs)


def all_batches(loader):
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


@pytest.fixture(scope="module")
def module():
    data = small_module(batch_size=16)
    data.setup("fit")
    data.setup("test")
    return data


@pytest.mark.parametrize(
    ("loader", "count"),
    [("train_dataloader", 64), ("val_dataloader", 48), ("test_dataloader", 40)],
)
def test_batches_have_the_documented_shapes_and_types(module, loader, count):
    loader = getattr(module, loader)()
    batch = next(iter(loader))
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
        "image": ((16, 3, 32, 32), torch.float32),
        "label": ((16,), torch.int64),
        "mask": ((16, 32, 32), torch.bool),
    }
    labels = all_batches(loader)["label"]
    assert len(labels) == count
    assert set(labels.tolist()) == set(range(len(module.class_names)))


@pytest.mark.parametrize("loader", ["val_dataloader", "test_dataloader"])
def test_evaluation_data_do_not_depend_on_the_seed_or_on_the_global_generator(module, loader):
    torch.manual_seed(123)
    other = small_module(batch_size=8, seed=7)
    other.setup("fit")
    other.setup("test")
    expected, actual = all_batches(getattr(module, loader)()), all_batches(getattr(other, loader)())
    for key in expected:
        assert torch.equal(actual[key], expected[key]), key


def test_training_composites_depend_on_the_seed_alone():
    def images(seed):
        data = small_module(seed=seed)
        data.setup("fit")
        torch.manual_seed(0)
        return all_batches(data.train_dataloader())["image"]

    assert torch.equal(images(3), images(3))
    assert not torch.equal(images(3), images(4))


def test_mask_is_the_garment_and_the_rest_is_background():
    garments = load_garments("val", 30)
    backgrounds = np.full((1, 64, 64, 3), 200, np.uint8)
    composites = compose(garments, backgrounds, 0.5, 0, np.random.default_rng(0))
    expected = np.pad(garments.images > 0, ((0, 0), (2, 2), (2, 2)))
    np.testing.assert_array_equal(composites.masks, expected)
    assert (composites.images[~composites.masks] == 100).all()
    # The strongest channel of a garment is its shade: a quarter to all of the pixel range.
    strongest = composites.images.max(-1)[composites.masks]
    levels = np.pad(garments.images, ((0, 0), (2, 2), (2, 2)))[composites.masks]
    np.testing.assert_array_equal(strongest, np.round(255 * (0.25 + 0.75 * levels / 31)))


def test_a_garment_is_shifted_and_otherwise_unchanged():
    garments = load_garments("train", 200)
    backgrounds = load_backgrounds("train")
    composites = compose(garments, backgrounds, 0.5, 2, np.random.default_rng(0))
    seen = set()
    for image, mask in zip(garments.images > 0, composites.masks, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(mask, (28, 28))
        fits = (windows == image).all((2, 3)) & (mask.sum() == image.sum())
        assert fits.any()
        if fits.sum() == 1:
            seen.add(tuple(np.argwhere(fits)[0]))
    assert len(seen) == 25


def occurs_in(piece, photographs):
    """Say whether `[32, 32, 3]` is a window of one of `[P, H, W, 3]`, perhaps mirrored."""
    for candidate in (piece, piece[:, ::-1]):
        corners = (photographs[:, :-31, :-31] == candidate[0, 0]).all(-1)
        for photograph, top, left in np.argwhere(corners):
            window = photographs[photograph, top : top + 32, left : left + 32]
            if np.array_equal(window, candidate):
                return True
    return False


@pytest.mark.parametrize(("split", "other"), [("train", "val"), ("val", "train")])
def test_backgrounds_are_pieces_of_the_photographs_of_their_split_only(split, other):
    nothing = Garments(np.zeros((40, 28, 28), np.uint8), np.zeros(40, np.int64))
    composites = compose(nothing, load_backgrounds(split), 1.0, 2, np.random.default_rng(0))
    assert not composites.masks.any()
    assert all(occurs_in(image, load_backgrounds(split)) for image in composites.images)
    assert not any(occurs_in(image, load_backgrounds(other)) for image in composites.images)


def test_no_photograph_and_no_garment_is_in_two_splits():
    sources = {
        group: {photo.source for photo in PHOTOGRAPHS if photo.split == group}
        for group in ("train", "held_out")
    }
    assert sources["train"].isdisjoint(sources["held_out"])
    shipped = {file.name for file in ASSETS.glob("background_*.png")}
    assert shipped == {photograph.target for photograph in PHOTOGRAPHS}
    pictures = {
        split: {image.tobytes() for image in load_garments(split, count).images}
        for split, count in {"train": 16000, "val": 2000, "test": 2000}.items()
    }
    assert len(pictures["train"]) > 15900
    assert pictures["train"].isdisjoint(pictures["val"] | pictures["test"])
    assert pictures["val"].isdisjoint(pictures["test"])


def test_every_split_is_balanced():
    for split, count in {"train": 16000, "val": 2000, "test": 2000}.items():
        labels = load_garments(split, count).labels
        np.testing.assert_array_equal(np.bincount(labels), [count // 10] * 10)


def test_training_pixels_have_the_documented_mean_and_deviation():
    data = GarmentsOnTextures(num_train=4000)
    data.setup("fit")
    image = all_batches(data.train_dataloader())["image"]
    std = torch.tensor(PIXEL_STD)
    mean = image.mean((0, 2, 3)) * std + torch.tensor(PIXEL_MEAN)
    torch.testing.assert_close(mean, torch.tensor(PIXEL_MEAN), atol=0.01, rtol=0)
    torch.testing.assert_close(image.std((0, 2, 3)) * std, std, atol=0.01, rtol=0)


def test_mirroring_moves_image_and_mask_together():
    mask = torch.rand(64, 32, 32) < 0.5
    batch = {"image": mask[:, None].float(), "mask": mask, "label": torch.arange(64)}
    mirrored = mirror_half(batch)
    assert torch.equal(mirrored["image"][:, 0] > 0, mirrored["mask"])
    assert torch.equal(mirrored["label"], batch["label"])
    same = (mirrored["mask"] == mask).all(2).all(1)
    assert 16 < same.sum() < 48
    assert torch.equal(mirrored["mask"][~same], mask[~same].flip(-1))


class Recorder(L.LightningModule):
    """Keep the images of each stage; there is nothing to train."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.images = {"train": [], "val": []}

    def training_step(self, batch, batch_idx):
        self.images["train"].append(batch["image"])
        return self.weight * 0

    def validation_step(self, batch, batch_idx):
        self.images["val"].append(batch["image"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("flip", [True, False])
def test_only_training_images_are_mirrored(flip):
    data = small_module(flip=flip)
    model = Recorder()
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, data)

    def untouched(stage, loader):
        originals = {image.numpy().tobytes() for image in all_batches(loader)["image"]}
        seen = torch.cat(model.images[stage])
        return sum(image.numpy().tobytes() in originals for image in seen) / len(seen)

    assert untouched("val", data.val_dataloader()) == 1
    share = untouched("train", data.train_dataloader())
    assert (0.25 < share < 0.75) if flip else (share == 1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"background_brightness": 1.5}, "background_brightness must lie between 0 and 1"),
        ({"max_shift": 3}, "max_shift must lie between 0 and 2"),
        ({"max_shift": -1}, "max_shift must lie between 0 and 2"),
        ({"num_train": 16001}, "train split holds 16000 garments, but 16001"),
        ({"num_train": 0}, "choose num_train between 1 and 16000"),
    ],
)
def test_impossible_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        small_module(**kwargs).setup("fit")


def test_assets_are_small_and_carry_their_licenses():
    files = [file for file in ASSETS.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 6_000_000
    readme = (ASSETS / "README.md").read_text()
    backgrounds = (ASSETS / "LICENSE-backgrounds.txt").read_text()
    assert "MIT License" in (ASSETS / "LICENSE-garments.txt").read_text()
    assert "CC0 1.0 Universal" in backgrounds
    for photograph in PHOTOGRAPHS:
        assert f"`{photograph.target}`" in readme
        assert f"  {Path(photograph.source).stem} " in backgrounds


def test_gray_levels_keep_the_ends_and_the_order():
    levels = quantize(np.arange(256, dtype=np.uint8))
    assert levels[4] == 0
    assert levels[5] == 1
    assert levels[255] == 31
    assert (np.diff(levels.astype(int)) >= 0).all()


def test_balanced_choice_takes_turns_and_skips():
    labels = np.array([1, 0, 0, 1, 0, 1, 1, 0], np.uint8)
    np.testing.assert_array_equal(balanced_indices(labels, 1, 2), [2, 3, 4, 5])
