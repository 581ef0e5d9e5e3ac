"""The model's own evaluation transform: images as timm makes them, masks with the same geometry."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from libragrad_lightning.data.transforms import EvalTransform

RESIZE_AND_CROP = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
SQUASH = "vit_so400m_patch14_siglip_gap_378.webli_ft_in1k"


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("size", [(300, 250), (120, 400), (224, 224)])
def test_images_are_what_timm_makes_of_them(size):
    model = timm.create_model("test_vit", pretrained=False)
    expected = create_transform(**resolve_model_data_config(model))(noise(*size))
    assert torch.equal(EvalTransform("test_vit").image(noise(*size)), expected)


@pytest.fixture
def padded(monkeypatch):
    """A model whose images are padded to squares instead of cropped."""
    config = replace(timm.get_pretrained_cfg(RESIZE_AND_CROP), crop_mode="border", crop_pct=1.0)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: config)
    return "padded"


@pytest.mark.parametrize("size", [(500, 333), (90, 120)])
def test_masks_are_padded_with_their_image(padded, size):
    test_masks_follow_their_image(padded, size)


@pytest.mark.parametrize("name", [RESIZE_AND_CROP, SQUASH, "eva02_small_patch14_336"])
@pytest.mark.parametrize("size", [(500, 333), (90, 120)])
def test_masks_follow_their_image(name, size):
    # A photograph of two flat halves: wherever the image is white, so is its mask.
    width, height = size
    half = np.zeros((height, width), bool)
    half[: height // 2, width // 3 :] = True
    picture = Image.fromarray(np.repeat(half[..., None] * np.uint8(255), 3, 2))
    transform = EvalTransform(name, 112)
    image, (mask,) = transform.image(picture), transform.masks(torch.from_numpy(half)[None])
    assert image.shape == (3, 112, 112)
    assert mask.shape == (112, 112)
    assert mask.dtype == torch.bool
    levels = image[0].quantile(torch.tensor([0.0, 1.0]))
    white = image[0] > levels[0] + 0.75 * levels.diff()
    assert (white != mask).float().mean() < 0.01


def test_masks_take_the_nearest_pixel_exactly():
    values = torch.randint(0, 1001, (2, 160, 200), dtype=torch.int32)
    cropped = EvalTransform(RESIZE_AND_CROP).masks(values)
    # Resize to 248 on the shorter side, then the middle 224, both written out.
    rows = ((np.arange(248) + 0.5) * 160 / 248).astype(int)[12:236]
    columns = ((np.arange(310) + 0.5) * 200 / 310).astype(int)[43:267]
    np.testing.assert_array_equal(cropped, values[:, rows][:, :, columns])
    assert cropped.dtype == torch.int32


def test_unknown_models_are_named():
    with pytest.raises(ValueError, match=r"no evaluation transform for 'my_model'.*model_name"):
        EvalTransform("my_model")
