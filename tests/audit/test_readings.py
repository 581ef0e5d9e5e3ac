"""A model is read once, and again when it has become another one."""

import gc
import weakref

import pytest
import timm
import torch
from config_cases import config
from torch import nn

from libragrad_lightning.audit import Readings
from libragrad_lightning.models import UnreadableModelError

SIZE = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "num_heads": 2}
IMAGES = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def vit(depth=2):
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=depth, **SIZE).eval()


def test_a_model_is_read_once_for_images_of_a_size():
    module, readings = vit(), Readings()
    first = readings.of(module, IMAGES, module, config())
    again = readings.of(module, IMAGES.repeat(2, 1, 1, 1), module.forward_features, config())
    assert again.levels is first.levels
    assert again.forward == module.forward_features
    other = readings.of(module, IMAGES.repeat(1, 1, 1, 1)[:, :, :, :16], module, config())
    assert other.levels is first.levels


def test_other_submodules_are_read_again():
    module, readings = vit(), Readings()
    first = readings.of(module, IMAGES, module, config())
    module.blocks[1] = vit().blocks[0]
    second = readings.of(module, IMAGES, module, config())
    assert second.blocks[1] is module.blocks[1]
    assert second.levels is not first.levels
    module.head = nn.Sequential(module.head, nn.Identity())
    assert readings.of(module, IMAGES, module, config()).levels is not second.levels


def test_another_size_is_read_beside_the_first():
    module = nn.Sequential(nn.AdaptiveAvgPool2d(16), vit())
    readings = Readings()
    first = readings.of(module, IMAGES, module, config())
    wide = torch.randn(1, 3, 32, 32)
    second = readings.of(module, wide, module, config())
    assert second.levels is not first.levels
    assert readings.of(module, IMAGES, module, config()).levels is first.levels
    assert readings.of(module, wide, module, config()).levels is second.levels


def test_blocks_are_looked_for_where_the_user_says():
    module = nn.Sequential(nn.Identity(), vit())
    found = Readings().of(module, IMAGES, module, config(backbone="1"))
    assert found.blocks == tuple(module[1].blocks)
    named = Readings().of(module, IMAGES, module, config(blocks=["1.blocks.1"]))
    assert named.blocks == (module[1].blocks[1],)
    for nowhere in ("0", "2"):
        with pytest.raises(UnreadableModelError):
            Readings().of(module, IMAGES, module, config(backbone=nowhere))


def test_a_reading_of_weights_that_are_no_numbers_takes_the_place_of_the_last_and_is_not_kept():
    readings, gone, module = Readings(), vit(1), vit(1)
    readings.of(gone, IMAGES, gone, config())
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    for parameter in module.parameters():
        parameter.data.fill_(torch.nan)
    assert not readings.of(module, IMAGES, module, config()).is_located
    block = weakref.ref(gone.blocks[0])
    del gone
    gc.collect()
    assert block() is None  # nothing of it is held
    module.load_state_dict(weights)
    found = readings.of(module, IMAGES, module, config())
    assert found.is_located
    assert readings.of(module, IMAGES, module, config()).levels is found.levels
