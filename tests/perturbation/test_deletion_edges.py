"""Scores, levels and rows that do not fit are refused in one sentence, by every operator alike."""

import numpy as np
import pytest
import timm
import torch

from libragrad_lightning.models import read_token_model
from libragrad_lightning.perturbation import (
    PERTURBATIONS,
    deletion_logits,
    insertion_logits,
    noise_fill,
)

IMAGES = torch.randn(2, 3, 32, 48)
SCORES = {"a": torch.randn(2, 24)}


@pytest.fixture(scope="module")
def read():
    return read_token_model(vit(), IMAGES)


def vit(**options):
    name, size = "vit_tiny_patch16_224", {"patch_size": 8, "img_size": (32, 48)}
    return timm.create_model(name, **size, depth=1, num_classes=3, **options).eval()


@pytest.mark.parametrize("operator", PERTURBATIONS)
@pytest.mark.parametrize(
    "shape", [(2, 4), (2, 25), (2, 1), (2, 2, 12), (2, 6, 4), (1, 24), (2,), (24,), (2, 1, 4, 6)]
)
def test_scores_of_other_patches_are_refused(read, operator, shape):
    sentence = r"`scores` must hold .* for 2 images of 4 x 6 patches, without .* prefix tokens"
    with pytest.raises(ValueError, match=sentence):
        deletion_logits(read, IMAGES, {"a": torch.rand(shape)}, perturbation=operator)
    with pytest.raises(ValueError, match="`scores` must hold"):
        deletion_logits(read, IMAGES, {}, perturbation=operator)


@pytest.mark.parametrize("operator", PERTURBATIONS)
def test_scores_of_the_grid_are_taken(read, operator):
    flat = deletion_logits(read, IMAGES, SCORES, (0.5,), perturbation=operator)["a"]
    grid = {"a": SCORES["a"].unflatten(1, (4, 6))}
    found = deletion_logits(read, IMAGES, grid, (0.5,), perturbation=operator)["a"]
    assert torch.equal(found.most_influential_first, flat.most_influential_first)


@pytest.mark.parametrize("levels", [np.array([0.25, 0.7]), torch.tensor([0.25, 0.7]), [0.25, 0.7]])
def test_levels_may_be_arrays(read, levels):
    expected = deletion_logits(read, IMAGES, SCORES, (0.25, 0.7))["a"]
    found = deletion_logits(read, IMAGES, SCORES, levels)["a"]
    assert torch.equal(found.most_influential_first, expected.most_influential_first)


def test_what_cannot_be_run_is_said(read):
    with pytest.raises(ValueError, match="`images` must hold at least one image"):
        deletion_logits(read, IMAGES[:0], {"a": torch.rand(0, 24)})
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"`batch_size` must be a positive .* is {size}"):
            deletion_logits(read, IMAGES, SCORES, batch_size=size)
    for levels in ([], np.array([]), (-0.1,), (float("nan"),)):
        with pytest.raises(ValueError, match="`levels` must be fractions"):
            deletion_logits(read, IMAGES, SCORES, levels)


POOLING = {
    "pools patches, class token": {"global_pool": "avg"},
    "pools patches, registers": {"global_pool": "avg", "class_token": False, "reg_tokens": 3},
    "pools patches alone": {"global_pool": "avg", "class_token": False},
    "pools the largest": {"global_pool": "max", "class_token": False},
}


@pytest.mark.parametrize("options", POOLING.values(), ids=POOLING)
def test_what_pools_over_patches_says_that_none_is_left(options):
    read = read_token_model(vit(**options), IMAGES)
    sentence = "leaves nothing .* below 1 for deletion and above 0 for insertion"
    with pytest.raises(ValueError, match=sentence):
        deletion_logits(read, IMAGES, SCORES, (0.5, 1.0), perturbation="drop_tokens")
    with pytest.raises(ValueError, match=sentence):
        insertion_logits(read, IMAGES, SCORES, (0.0, 0.5), perturbation="drop_tokens")
    for levels, operator in (((0.5, 0.95), "drop_tokens"), ((0.5, 1.0), "zero_tokens")):
        found = deletion_logits(read, IMAGES, SCORES, levels, perturbation=operator)["a"]
        assert found.most_influential_first.isfinite().all()
        kept = [1 - level for level in levels]
        inserted = insertion_logits(read, IMAGES, SCORES, kept, perturbation=operator)["a"]
        assert inserted.most_influential_first.isfinite().all()


def test_the_noise_of_an_image_is_its_own():
    images = torch.randn(4, 3, 8, 8)
    noise = noise_fill(images)
    for part in (images[2:], images[2:3], images.flip(0)[1:2]):
        torch.testing.assert_close(noise_fill(part)[:1], noise[2:3])
    assert not torch.allclose(noise[0] - noise[0].mean(), noise[1] - noise[1].mean(), atol=0.5)
    assert noise_fill(torch.rand(2, 3, 1, 1)).isfinite().all()
