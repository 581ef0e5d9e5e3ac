"""The planted shortcut: the mark says the class, and is where it is said to be and nowhere else."""

import numpy as np
import pytest
import torch

from libragrad_lightning.demo import PIXEL_MEAN, PIXEL_STD, GarmentsOnTextures, MarkedGarments
from libragrad_lightning.demo.marked_garments import class_colors

COUNTS = {"num_train": 60, "num_val": 40, "num_test": 40, "batch_size": 20}


def images(loader):
    batches = list(loader)
    return tuple(torch.cat([b[key] for b in batches]) for key in ("image", "label", "mask"))


def module(kind=MarkedGarments, stage="fit", **kwargs):
    data = kind(**(COUNTS | kwargs))
    data.setup(stage)
    return data


def bytes_of(image):
    mean, std = torch.tensor(PIXEL_MEAN).view(3, 1, 1), torch.tensor(PIXEL_STD).view(3, 1, 1)
    return ((image * std + mean) * 255).round().byte()


def test_the_mark_alone_says_the_class_in_training_and_marked_validation():
    data = module(mark_size=3)
    for loader in (data.train_dataloader(), data.val_dataloader()[0]):
        image, label, mask = images(loader)
        corner = bytes_of(image)[:, :, :3, :3]
        assert torch.equal(corner, corner[:, :, :1, :1].expand_as(corner))
        nearest = np.abs(corner[:, :, 0, 0].numpy()[:, None].astype(int) - class_colors(10))
        assert np.array_equal(nearest.sum(-1).argmin(1), label.numpy())
        assert not mask[:, :3, :3].any()


def test_both_validation_loaders_show_the_same_images_but_for_the_mark():
    marked, clean = map(images, module(mark_size=3).val_dataloader())
    (reference,) = [images(module(GarmentsOnTextures).val_dataloader())]
    for ours, theirs in zip(clean, reference, strict=True):
        assert torch.equal(ours, theirs)
    differs = (marked[0] != clean[0]).any(1)
    assert differs[:, :3, :3].any(0).all()
    differs[:, :3, :3] = False
    assert not differs.any()
    assert torch.equal(marked[1], clean[1])
    assert torch.equal(marked[2][:, 3:], clean[2][:, 3:])


def test_the_test_images_have_no_mark():
    ours = images(module(stage="test").test_dataloader())
    theirs = images(module(GarmentsOnTextures, stage="test").test_dataloader())
    assert all(map(torch.equal, ours, theirs))


def test_no_mark_is_the_demo():
    ours, theirs = module(mark_size=0, flip=False), module(GarmentsOnTextures, flip=False)
    torch.manual_seed(0)
    first = images(ours.train_dataloader())
    torch.manual_seed(0)
    assert all(map(torch.equal, first, images(theirs.train_dataloader())))
    assert all(map(torch.equal, *map(images, ours.val_dataloader())))


@pytest.mark.parametrize("size", [-1, 33])
def test_sizes_out_of_range(size):
    with pytest.raises(ValueError, match=f"mark_size must lie between 0 and 32, but is {size}"):
        MarkedGarments(mark_size=size)


def test_colors_are_told_apart():
    colors = class_colors(10).astype(int)
    distances = np.abs(colors[:, None] - colors[None]).sum(-1)
    assert distances[~np.eye(10, dtype=bool)].min() > 100
