"""Garments of any size anywhere: sizes, places, masks, fresh images and fixed ones."""

import numpy as np
import pytest
import torch

from libragrad_lightning.demo import PIXEL_MEAN, PIXEL_STD, ScatteredGarments
from libragrad_lightning.demo.compositing import Garments, load_backgrounds, load_garments
from libragrad_lightning.demo.scattered_garments import Look, scatter

BLACK = np.zeros((1, 64, 64, 3), np.uint8)


def small_module(**kwargs):
    return ScatteredGarments(**{"num_train": 72, "num_val": 30, "num_test": 20} | kwargs)


def whole(loader):
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def box(mask):
    """First and last row, first and last column."""
    found = [np.flatnonzero(mask.any(axis)) for axis in (1, 0)]
    return [int(end) for line in found for end in (line[0], line[-1])]


def solid(count):
    return Garments(np.full((count, 28, 28), 31, np.uint8), np.zeros(count, np.int64))


def test_garments_have_every_size_of_the_range_and_lie_anywhere_in_the_frame():
    look = Look((12, 24), 0.5, 0.0, mirrored=False)
    found = scatter(solid(400), BLACK, look, np.random.default_rng(0))
    boxes = np.array([box(mask) for mask in found.masks])
    heights, widths = boxes[:, 1] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 2] + 1
    assert np.abs(heights - widths).max() <= 1
    assert (heights.min(), heights.max()) == (12, 24)
    assert boxes.min() == 0
    assert boxes.max() == 31


def test_a_garment_as_large_as_taken_is_unchanged():
    garments = load_garments("val", 20)
    look = Look((28, 28), 0.0, 0.0, mirrored=False)
    for image, mask in zip(
        garments.images, scatter(garments, BLACK, look, np.random.default_rng(0)).masks, strict=True
    ):
        # Places are no whole pixels, so that the outline may be off by one.
        windows = np.lib.stride_tricks.sliding_window_view(mask, (28, 28))
        assert ((windows != (image > 0)).mean((2, 3)).min()) < 0.12


def test_half_of_the_garments_of_training_are_mirrored():
    garments = Garments(np.zeros((200, 28, 28), np.uint8), np.zeros(200, np.int64))
    garments.images[:, :, :14] = 31
    garments.images[:, 0, 14:] = 31
    for mirrored, low, high in ((True, 60, 140), (False, 0, 0)):
        look = Look((20, 20), 0.5, 0.0, mirrored)
        masks = scatter(garments, BLACK, look, np.random.default_rng(0)).masks
        columns = [box(mask)[2] + 10 for mask in masks]
        left = [m[:, :c].sum() < m[:, c:].sum() for m, c in zip(masks, columns, strict=True)]
        assert low <= sum(left) <= high


def test_the_background_is_a_tinted_photograph():
    gray = np.full((1, 64, 64, 3), 200, np.uint8)
    nothing = Garments(np.zeros((300, 28, 28), np.uint8), np.zeros(300, np.int64))
    plain = scatter(nothing, gray, Look((20, 20), 0.5, 0.0, False), np.random.default_rng(0))
    assert (plain.images == 100).all()
    assert not plain.masks.any()
    tinted = scatter(nothing, gray, Look((20, 20), 0.5, 0.5, False), np.random.default_rng(0))
    assert 50 <= tinted.images.min() < 60
    assert 140 < tinted.images.max() <= 150


def test_batches_have_the_documented_shapes_and_every_garment_occurs_once():
    data = small_module(batch_size=16)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert [len(batch["label"]) for batch in batches] == [16, 16, 16, 16, 8]
    batch = batches[0]
    assert (batch["image"].shape, batch["image"].dtype) == ((16, 3, 32, 32), torch.float32)
    assert (batch["mask"].shape, batch["mask"].dtype) == ((16, 32, 32), torch.bool)
    labels = torch.cat([batch["label"] for batch in batches])
    expected = torch.from_numpy(load_garments("train", 72).labels)
    assert torch.equal(labels.sort().values, expected.sort().values)
    with pytest.raises(IndexError):
        data.build("train")[5]


def test_training_images_depend_on_the_seed_and_the_epoch():
    class Epoch:
        current_epoch = 1
        training = True

    def images(seed, epoch=None):
        data = small_module(seed=seed)
        data.setup("fit")
        data.trainer = epoch
        return whole(data.train_dataloader())["image"]

    assert torch.equal(images(3), images(3))
    assert not torch.equal(images(3), images(4))
    assert not torch.equal(images(3), images(3, Epoch()))


def test_validation_images_are_always_the_same_and_test_shows_others():
    first, second = small_module(), small_module(seed=9, background_tint=0.0)
    for data in (first, second):
        data.setup("fit")
        data.setup("test")
    for loader in ("val_dataloader", "test_dataloader"):
        found, expected = (whole(getattr(d, loader)()) for d in (first, second))
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert not torch.equal(first.build("val")[0]["image"], first.build("test")[0]["image"])
    held_out = load_backgrounds("val")
    nothing = scatter(
        Garments(np.zeros((9, 28, 28), np.uint8), np.zeros(9, np.int64)),
        held_out,
        Look((20, 20), 1.0, 0.0, False),
        np.random.default_rng(0),
    )
    assert np.isin(nothing.images, held_out).all()


def test_images_are_normalized_as_documented():
    data = small_module(num_train=16000, batch_size=500)
    image = data.build("train")[0]["image"]
    std, mean = (torch.tensor(c)[:, None, None] for c in (PIXEL_STD, PIXEL_MEAN))
    pixels = image * std + mean
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    assert 0.7 < float(image.std()) < 1.3


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"garment_size": (26, 18)}, "garment_size must hold two rising numbers"),
        ({"garment_size": (4, 18)}, "from 8 to 32"),
        ({"background_tint": 1.5}, "background_tint must lie between 0 and 1"),
        ({"background_brightness": -0.5}, "background_brightness must lie between 0 and 1"),
        ({"num_train": 16001}, "train split holds 16000 garments, but 16001"),
    ],
)
def test_impossible_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        small_module(**kwargs).setup("fit")
