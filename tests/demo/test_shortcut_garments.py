"""Planted shortcuts: the cue says the class, and is where it is said to be and nowhere else."""

import numpy as np
import pytest
import torch

from libragrad_lightning.demo import PIXEL_MEAN, PIXEL_STD, GarmentsOnTextures, ShortcutGarments
from libragrad_lightning.demo.shortcuts import CUES, PERIODS, Planting, class_colors, plant

COUNTS = {"num_train": 60, "num_val": 40, "num_test": 40, "batch_size": 20}
MARK_SIZE = 3
CORNER = (..., slice(MARK_SIZE), slice(MARK_SIZE))


def images(loader):
    batches = list(loader)
    return tuple(torch.cat([b[key] for b in batches]) for key in ("image", "label", "mask"))


def module(kind=ShortcutGarments, stage="fit", **kwargs):
    ours = {"mark_size": MARK_SIZE} if kind is ShortcutGarments else {}
    data = kind(**(COUNTS | ours | kwargs))
    data.setup(stage)
    return data


def bytes_of(image):
    mean, std = torch.tensor(PIXEL_MEAN).view(3, 1, 1), torch.tensor(PIXEL_STD).view(3, 1, 1)
    return ((image * std + mean) * 255).round().byte()


def place(shortcut, garment):
    """Where a cue may change pixels, `[N, 32, 32]`, as the data module says it."""
    corner = torch.zeros_like(garment)
    corner[CORNER] = True
    return {"mark": corner, "color": garment, "background": ~garment, "texture": ~garment}[shortcut]


def labels_by_color(pixels):
    """The class whose color is nearest to each color, `[N, 3]`."""
    return np.abs(pixels[:, None].astype(int) - class_colors(10)).sum(-1).argmin(1)


def labels_by_stripes(image, garment):
    """The class of each image, by how well waves of every class fit what is not garment."""
    at = 2 * np.pi * np.arange(32) / np.repeat(PERIODS, 2)[:, None]
    waves = np.stack([np.sin(at), np.cos(at)], 1)
    residuals = []
    for label, pair in enumerate(waves):
        fields = [np.broadcast_to(w if label % 2 == 0 else w[:, None], (32, 32)) for w in pair]
        columns = np.stack([np.ones((32, 32)), *fields], -1)
        pairs = zip(image, ~garment, strict=True)
        residuals.append([_residual(columns[outside], i[outside]) for i, outside in pairs])
    return np.array(residuals).argmin(0)


def _residual(columns, values):
    weights = np.linalg.lstsq(columns, values, rcond=None)[0]
    return np.square(columns @ weights - values).sum()


@pytest.mark.parametrize("shortcut", CUES)
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_both_validation_loaders_show_the_same_images_but_for_the_cue(shortcut, strength):
    data = module(shortcut=shortcut, strength=strength)
    planted, clean = map(images, data.val_dataloader())
    reference = images(module(GarmentsOnTextures).val_dataloader())
    assert all(map(torch.equal, clean, reference))
    assert torch.equal(planted[1], clean[1])
    differs = (planted[0] != clean[0]).any(1)
    where = place(shortcut, clean[2])
    assert not differs[~where].any()
    assert differs[where].float().mean() > 0.95
    # A pixel is garment unless the cue lies over it.
    hidden = where & clean[2] if shortcut == "mark" else torch.zeros_like(where)
    assert torch.equal(planted[2], clean[2] & ~hidden)


@pytest.mark.parametrize("shortcut", CUES)
def test_the_opacity_of_a_cue_is_its_strength(shortcut):
    clean, faint, full = (
        bytes_of(images(module(shortcut=shortcut, strength=s).val_dataloader()[0])[0]).float()
        for s in (0, 0.25, 1)
    )
    assert (faint - (0.75 * clean + 0.25 * full)).abs().max() <= 0.501


@pytest.mark.parametrize("shortcut", CUES)
def test_the_cue_alone_says_the_class_in_training_and_the_first_validation_loader(shortcut):
    data = module(shortcut=shortcut)
    clean = images(data.val_dataloader()[1])[2]
    for loader, garment in ((data.train_dataloader(), None), (data.val_dataloader()[0], clean)):
        image, label, mask = images(loader)
        pixels, garment = bytes_of(image).numpy(), (mask if garment is None else garment).numpy()
        if shortcut == "texture":
            found = labels_by_stripes(pixels[:, 0].astype(float), garment)
        else:
            where = place(shortcut, torch.from_numpy(garment)).numpy()
            chosen = [p[:, w] for p, w in zip(pixels, where, strict=True)]
            assert all((c == c[:, :1]).all() for c in chosen)
            found = labels_by_color(np.stack([c[:, 0] for c in chosen]))
        assert np.array_equal(found, label.numpy())


@pytest.mark.parametrize("shortcut", CUES)
def test_a_mirrored_cue_says_the_same_class(shortcut):
    image, label, garment = images(module(shortcut=shortcut).val_dataloader()[0])
    mirrored, outside = bytes_of(image).flip(-1).numpy(), garment.flip(-1).numpy()
    if shortcut == "texture":
        found = labels_by_stripes(mirrored[:, 0].astype(float), outside)
    else:
        where = place(shortcut, garment).flip(-1).numpy()
        pairs = zip(mirrored, where, strict=True)
        found = labels_by_color(np.stack([pixels[:, w][:, 0] for pixels, w in pairs]))
    assert np.array_equal(found, label.numpy())


@pytest.mark.parametrize("shortcut", CUES)
def test_the_test_images_have_no_cue(shortcut):
    ours = images(module(stage="test", shortcut=shortcut).test_dataloader())
    theirs = images(module(GarmentsOnTextures, stage="test").test_dataloader())
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("shortcut", CUES)
def test_no_strength_is_the_demo(shortcut):
    ours = module(shortcut=shortcut, strength=0, flip=False)
    theirs = module(GarmentsOnTextures, flip=False)
    torch.manual_seed(0)
    first = images(ours.train_dataloader())
    torch.manual_seed(0)
    assert all(map(torch.equal, first, images(theirs.train_dataloader())))
    assert all(map(torch.equal, *map(images, ours.val_dataloader())))


@pytest.mark.parametrize("shortcut", CUES)
def test_images_depend_on_the_seed_in_training_alone(shortcut):
    def found(seed):
        data = module(shortcut=shortcut, seed=seed)
        return [data.build(split)[:]["image"] for split in ("train", "val")]

    first, again, other = found(1), found(1), found(2)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(first[1], other[1])


def test_stripes_begin_anywhere():
    data = module(shortcut="texture", num_val=200)
    composites = plant(
        data.composites("val"), Planting("texture", 1.0, 2), np.random.default_rng(0)
    )
    same = composites.images[composites.labels == 4][:, :, 0, 0]
    assert len(np.unique(same[:, 0])) > len(same) / 2


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strengths_out_of_range(strength):
    with pytest.raises(ValueError, match=f"strength must lie between 0 and 1, but is {strength}"):
        ShortcutGarments(strength=strength)


@pytest.mark.parametrize("size", [0, 33])
def test_marks_out_of_range(size):
    with pytest.raises(ValueError, match=f"mark_size must lie between 1 and 32, but is {size}"):
        ShortcutGarments(mark_size=size)


def test_unknown_kinds():
    expected = "one of mark, color, background, texture, but is 'smell'; change shortcut"
    with pytest.raises(ValueError, match=expected):
        ShortcutGarments(shortcut="smell")


def test_colors_are_told_apart():
    colors = class_colors(10).astype(int)
    distances = np.abs(colors[:, None] - colors[None]).sum(-1)
    assert distances[~np.eye(10, dtype=bool)].min() > 100
