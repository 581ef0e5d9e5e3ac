"""Scenes of two garments side by side."""

import pytest
import torch
from torch.utils.data import default_collate

from libragrad_lightning.data import AskedTwice
from libragrad_lightning.demo import GarmentPairs


def test_two_garments_of_two_classes_lie_in_two_halves():
    pairs = GarmentPairs("val", 60)
    batch = default_collate([pairs[i] for i in range(len(pairs))])
    assert batch["image"].shape == (60, 3, 32, 32)
    assert (batch["label"] != batch["other_label"]).all()
    assert len(batch["label"].unique()) == len(batch["other_label"].unique()) == 10
    left, right = (batch[key][..., :16].flatten(1).any(1) for key in ("mask", "other_mask"))
    assert torch.equal(left, ~right)
    assert left.any()
    assert right.any()
    for key in ("mask", "other_mask"):
        columns = batch[key].any(1)
        assert not (columns[:, :16].any(1) & columns[:, 16:].any(1)).any()
        assert columns.any(1).all()


def test_the_scenes_are_always_the_same_and_others_in_other_splits():
    first, again, other = GarmentPairs("val", 5), GarmentPairs("val", 5), GarmentPairs("test", 5)
    assert all(torch.equal(first[i]["image"], again[i]["image"]) for i in range(5))
    assert not torch.equal(first[0]["image"], other[0]["image"])


def test_each_scene_can_be_asked_twice():
    asked = AskedTwice(GarmentPairs("val", 3))
    assert len(asked) == 6
    first, second = asked[4], asked[5]
    assert torch.equal(first["mask"], second["other_mask"])
    assert torch.equal(first["other_label"], second["label"])


def test_garments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"up to 16, half of an image, but is \(15, 20\)"):
        GarmentPairs("val", 2, garment_size=(15, 20))
