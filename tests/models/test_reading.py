"""Finding tokens: by structure, inside any module, with a sentence where there are none."""

import pytest
import timm
import torch
from torch import nn

from libragrad_lightning.models import (
    UnreadableModelError,
    find_backbone,
    logits_of,
    read_token_model,
)

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def vit(**kwargs):
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, **(SMALL | kwargs)).eval()


def test_the_backbone_is_found_at_any_depth():
    module = nn.ModuleDict({"wrap": nn.Sequential(nn.Identity(), vit())})
    assert find_backbone(module) == "wrap.1"
    assert find_backbone(vit()) == ""


def test_two_backbones_need_a_path():
    module = nn.ModuleDict({"student": vit(), "teacher": vit()})
    with pytest.raises(UnreadableModelError, match=r"student, teacher.*`backbone`"):
        find_backbone(module)
    assert len(read_token_model(module, "teacher").layout.blocks) == 2


@pytest.mark.parametrize("path", [None, "0"])
def test_a_model_without_tokens_is_refused(path):
    with pytest.raises(UnreadableModelError, match="`backbone`"):
        read_token_model(nn.Sequential(nn.Conv2d(3, 4, 3)), path)


def test_a_wrong_path_names_the_children():
    with pytest.raises(UnreadableModelError, match=r"no submodule 'modle'.*model"):
        read_token_model(nn.ModuleDict({"model": vit()}), "modle")


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("vit_tiny_patch16_224", 1),
        ("deit3_small_patch16_224", 1),
        ("vit_base_patch16_clip_224", 1),
        ("vit_base_patch16_siglip_224", 0),
        ("vit_small_patch14_reg4_dinov2", 5),
    ],
)
def test_tokens_are_what_enters_the_blocks(name, prefix):
    model = timm.create_model(name, num_classes=5, **SMALL).eval()
    read = read_token_model(model)
    images = torch.randn(2, 3, 32, 32)
    recording = read.record(images)
    assert read.layout.num_prefix_tokens == prefix
    assert recording.features[0].shape == (2, 16 + prefix, 24)
    assert len(recording.features) == 2
    assert torch.equal(recording.logits, model(images))
    assert torch.equal(read.tokens(images), recording.features[0])
    assert torch.equal(read.logits_from_tokens(images, read.tokens(images)), model(images))
    assert read.grid(images, 16 + prefix) == (4, 4)


def test_z0_lies_before_the_first_norm_of_clip():
    model = timm.create_model("vit_base_patch16_clip_224", num_classes=5, **SMALL).eval()
    recording = read_token_model(model).record(torch.randn(2, 3, 32, 32))
    assert recording.features[0].is_leaf
    assert not torch.allclose(recording.features[0].std(-1), torch.ones(2, 17), atol=0.05)


def test_no_hooks_stay_even_if_the_forward_pass_raises():
    model = vit()

    def broken(images):
        model(images)
        raise RuntimeError("in the middle")

    read = read_token_model(model, forward=broken)
    with pytest.raises(RuntimeError, match="in the middle"):
        read.record(torch.randn(1, 3, 32, 32))
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vit_tiny_patch16_224", True), ("vit_base_patch16_siglip_224", True)],
)
def test_positions_live_in_the_tokens_of_plain_transformers(name, expected):
    model = timm.create_model(name, num_classes=5, **SMALL).eval()
    assert read_token_model(model).positions_end_at_tokens(torch.randn(1, 3, 32, 32)) is expected


def test_rotary_models_keep_positions_elsewhere():
    model = timm.create_model("eva02_tiny_patch14_224", num_classes=5, depth=1).eval()
    assert not read_token_model(model).positions_end_at_tokens(torch.randn(1, 3, 224, 224))


def test_grids_follow_the_aspect_ratio():
    read = read_token_model(vit())
    assert read.grid(torch.zeros(1, 3, 32, 64), 1 + 32) == (4, 8)
    with pytest.raises(UnreadableModelError, match="do not fill a grid"):
        read.grid(torch.zeros(1, 3, 32, 32), 1 + 15)


def test_logits_are_taken_out_of_what_models_return():
    logits = torch.randn(2, 3)
    assert logits_of({"logits": logits}) is logits
    assert logits_of((logits, None)) is logits
    assert logits_of(type("Output", (), {"logits": logits})()) is logits
    for wrong in (torch.randn(2, 3, 4), "text", {"loss": logits}, None):
        with pytest.raises(UnreadableModelError, match=r"logits of shape \[B, C\]"):
            logits_of(wrong)
