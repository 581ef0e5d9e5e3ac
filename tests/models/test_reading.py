"""Reading models from a forward pass: levels, axes, prefix tokens, and sentences where it fails."""

import pytest
import timm
import torch
from torch import nn

from libragrad_lightning.attribution import logit
from libragrad_lightning.attribution.explaining import explain_tokens
from libragrad_lightning.models import (
    Axes,
    UnreadableModelError,
    explanation_state,
    logits_of,
    read_token_model,
)

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

# name: image size, arguments, levels, prefix tokens, axes, grid of z0
TOKENS, LAST, FIRST = Axes.TOKENS, Axes.CHANNELS_LAST, Axes.CHANNELS_FIRST
FAMILIES = {
    "vit_tiny_patch16_224": (32, SMALL, 2, 1, TOKENS, (4, 4)),
    "deit3_small_patch16_224": (32, SMALL, 2, 1, TOKENS, (4, 4)),
    "vit_base_patch16_clip_224": (32, SMALL, 2, 1, TOKENS, (4, 4)),
    "vit_base_patch16_siglip_224": (32, SMALL, 2, 0, TOKENS, (4, 4)),
    "vit_small_patch14_reg4_dinov2": (32, SMALL, 2, 5, TOKENS, (4, 4)),
    "deit_tiny_distilled_patch16_224": (32, SMALL, 2, 2, TOKENS, (4, 4)),
    "eva02_tiny_patch14_224": (32, SMALL, 2, 1, TOKENS, (4, 4)),
    "vit_small_patch16_dinov3": (32, SMALL, 2, 5, TOKENS, (4, 4)),
    "beit_base_patch16_224": (32, SMALL, 2, 1, TOKENS, (4, 4)),
    "flexivit_small": (32, SMALL, 2, 1, TOKENS, (4, 4)),
    "naflexvit_base_patch16_gap": (64, {}, 12, 4, TOKENS, (4, 4)),
    "cait_xxs24_224": (32, SMALL, 2, 0, TOKENS, (4, 4)),
    "mixer_s32_224": (224, {}, 8, 0, TOKENS, (7, 7)),
    "gmixer_24_224": (224, {}, 24, 0, TOKENS, (14, 14)),
    "resmlp_12_224": (224, {}, 12, 0, TOKENS, (14, 14)),
    "xcit_nano_12_p16_224": (64, {"depth": 2}, 4, 0, TOKENS, (4, 4)),
    "pvt_v2_b0": (64, {}, 8, 0, TOKENS, (16, 16)),
    "hiera_tiny_224": (64, {"img_size": 64}, 12, 0, TOKENS, (16, 16)),
    "swin_tiny_patch4_window7_224": (
        64,
        {"depths": (1, 1, 1, 1), "img_size": 64, "window_size": 4},
        4,
        0,
        LAST,
        (16, 16),
    ),
    "davit_tiny": (224, {"depths": (1, 1, 1, 1)}, 8, 0, FIRST, (56, 56)),
    "convnext_atto": (64, {}, 12, 0, FIRST, (16, 16)),
    "mambaout_femto": (64, {}, 18, 0, LAST, (16, 16)),
    "resnet18": (64, {}, 8, 0, FIRST, (16, 16)),
    "efficientnet_b0": (64, {}, 16, 0, FIRST, (32, 32)),
    "regnetx_002": (64, {}, 13, 0, FIRST, (32, 32)),
    "densenet121": (64, {}, 4, 0, FIRST, (16, 16)),
}


def vit(**kwargs):
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, **(SMALL | kwargs)).eval()


def with_biases(name, arguments):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **arguments).eval().double()
    for p in model.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    return model


@pytest.mark.rotating
@pytest.mark.parametrize("name", FAMILIES)
def test_every_level_is_read_and_complete(name):
    size, arguments, levels, prefix, axes, grid = FAMILIES[name]
    model = with_biases(name, arguments)
    images = torch.randn(2, 3, size, size).double()
    undisturbed = model(images).detach()
    read = read_token_model(model, images)
    assert (len(read.levels), read.prefix(images)) == (levels, prefix)
    assert read.views(images)[0].axes is axes
    assert read.grid(images) == grid
    with explanation_state(model):
        (explanation,) = explain_tokens(read, images, reward=logit)
    assert explanation.attribution.shape == (2, *grid)
    assert explanation.prefix.shape == (2, prefix)
    difference = (explanation.reward_sums - explanation.target_logit).abs()
    assert difference.max() <= 1e-9 * explanation.target_logit.abs().max()
    assert torch.equal(explanation.logits, undisturbed)
    assert torch.equal(read.logits_from_tokens(images, read.tokens(images)), undisturbed)
    hooks = [m for m in model.modules() if m._forward_pre_hooks or m._forward_hooks]
    assert not hooks


def test_hieras_tokens_are_put_back_where_they_are_in_the_image():
    model = with_biases("hiera_tiny_224", {})
    images = torch.randn(1, 3, 224, 224).double()
    changed = images.clone()
    changed[:, :, :112, :56] += 1
    read = read_token_model(model, images)
    with explanation_state(model):
        recordings = [read.record(x) for x in (images, changed)]
    for level in range(2):  # later ones mix tokens over the whole image
        first, second = (r.views[level].tokens(r.features[level]) for r in recordings)
        moved = (first - second).abs().sum((0, 2)).view(recordings[0].views[level].grid) > 0
        assert moved[: moved.shape[0] // 2, : moved.shape[1] // 4].all()
        assert not moved[moved.shape[0] * 3 // 4 :, moved.shape[1] // 2 :].any()


def test_a_network_without_branches_has_its_layers_for_levels():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    layers += [nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(2048, 5)]
    model = nn.Sequential(*layers).double()
    images = IMAGES.double()
    read = read_token_model(model, images)
    assert read.blocks == (model[2], model[5])
    with explanation_state(model):
        (explanation,) = explain_tokens(read, images, reward=logit)
    assert explanation.attribution.shape == (2, 32, 32)
    assert explanation.residuals.abs().max() < 1e-12


class Library(nn.Module):
    """A transformer as other libraries build it: keyword arguments, tuples, no timm names."""

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
            self.norm = nn.LayerNorm(12)
            self.dense = nn.Linear(12, 12)

        def forward(self, hidden_states=None, flag=True):
            x = self.norm(hidden_states)
            x = hidden_states + self.attention(x, x, x)[0]
            return (x + self.dense(x).relu(), None)

    def __init__(self):
        super().__init__()
        self.to_patches = nn.Conv2d(3, 12, 8, 8)
        self.layer = nn.ModuleList([self.Layer(), self.Layer(), self.Layer()])
        self.top = nn.Linear(12, 5)

    def forward(self, images):
        x = self.to_patches(images).flatten(2).transpose(1, 2)
        for layer in self.layer:
            x = layer(hidden_states=x)[0]
        return {"logits": self.top(x.mean(1))}


def test_layers_of_other_libraries_are_read_by_their_keyword_arguments():
    model = Library().double()
    images = IMAGES.double()
    read = read_token_model(model, images)
    assert [level.points[0].module for level in read.levels] == list(model.layer)
    assert read.levels[0].points[0].argument == "hidden_states"
    with explanation_state(model):
        (explanation,) = explain_tokens(read, images, reward=logit)
    difference = (explanation.reward_sums - explanation.target_logit).abs()
    assert difference.max() < 1e-12


def test_only_what_runs_is_read():
    module = nn.ModuleDict({"student": vit(), "teacher": vit()})
    read = read_token_model(module, IMAGES, forward=lambda x: module["student"](x))
    assert read.blocks == tuple(module["student"].blocks)


def test_the_user_can_say_where_to_look():
    model = vit(depth=4)
    named = read_token_model(model, IMAGES, blocks=["blocks.1", "blocks.3"])
    assert named.blocks == (model.blocks[1], model.blocks[3])
    pair = nn.Sequential(vit(depth=3), nn.Linear(5, 4))
    assert read_token_model(pair, IMAGES, backbone="0").blocks == tuple(pair[0].blocks)


@pytest.mark.parametrize("blocks", [["head"], ["blocks.0.attn.qkv"], ["fc_norm"]])
def test_modules_that_do_not_carry_the_image_are_no_blocks(blocks):
    with pytest.raises(UnreadableModelError, match=r"in `blocks` received \(2, "):
        read_token_model(vit(), IMAGES, blocks=blocks)


def test_a_model_without_features_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    with pytest.raises(UnreadableModelError, match="No blocks were found in Sequential"):
        read_token_model(model, IMAGES)


def test_a_wrong_path_names_the_children():
    with pytest.raises(UnreadableModelError, match=r"no submodule 'modle'.*model"):
        read_token_model(nn.ModuleDict({"model": vit()}), IMAGES, backbone="modle")


@pytest.mark.parametrize(
    "images", [IMAGES[:0], IMAGES[0], IMAGES.to(torch.uint8)], ids=["empty", "single", "bytes"]
)
def test_images_that_are_no_batch_are_refused(images):
    with pytest.raises(UnreadableModelError, match=r"`images` must be a floating point tensor"):
        read_token_model(vit(), images)


@pytest.mark.parametrize("size", [4, 48])
def test_images_of_a_size_that_the_model_refuses(size):
    with pytest.raises(
        UnreadableModelError, match=rf"does not accept images \(3, {size}, {size}\)"
    ):
        read_token_model(vit(), torch.randn(1, 3, size, size))


def test_a_forward_pass_without_gradients_is_refused():
    model = vit()
    with pytest.raises(UnreadableModelError, match=r"do not depend on the images"):
        read_token_model(model, IMAGES, forward=torch.no_grad()(model))


def test_z0_lies_before_the_first_norm_of_clip():
    model = timm.create_model("vit_base_patch16_clip_224", num_classes=5, **SMALL).eval()
    recording = read_token_model(model, IMAGES).record(IMAGES)
    assert recording.features[0].is_leaf
    assert not torch.allclose(recording.features[0].std(-1), torch.ones(2, 17), atol=0.05)


def test_no_hooks_stay_even_if_the_forward_pass_raises():
    model = vit()
    read = read_token_model(model, IMAGES)

    def broken(images):
        model(images)
        raise RuntimeError("in the middle")

    with pytest.raises(UnreadableModelError, match=r"does not accept images .*in the middle"):
        read_token_model(model, IMAGES, forward=broken)
    with pytest.raises(RuntimeError, match="in the middle"):
        type(read)(broken, read.levels, read.blocks).record(IMAGES)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


POSITIONS = {
    "vit_tiny_patch16_224": (SMALL, True),
    "vit_base_patch16_siglip_224": (SMALL, True),
    "eva02_tiny_patch14_224": (SMALL, True),
    "vit_small_patch16_dinov3": (SMALL, True),
    "vit_pe_core_tiny_patch16_384": (SMALL, True),
    "cait_xxs24_224": (SMALL, True),
    "beit_base_patch16_224": (SMALL, False),
    "vit_relpos_small_patch16_224": (SMALL, False),
    "resnet10t": ({}, False),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_tokens_may_be_left_out_where_their_positions_go_with_them(name):
    arguments, expected = POSITIONS[name]
    model = with_biases(name, arguments)
    images = torch.randn(1, 3, 32, 32).double()
    assert read_token_model(model, images).can_drop_tokens(images) is expected


def test_grids_follow_the_aspect_ratio():
    model = vit(img_size=(32, 64))
    read = read_token_model(model, torch.zeros(1, 3, 32, 64))
    assert read.grid(torch.zeros(1, 3, 32, 64)) == (4, 8)
    read = read_token_model(vit(dynamic_img_size=True), torch.randn(1, 3, 32, 32))
    assert read.grid(torch.zeros(1, 3, 64, 32)) == (8, 4)


def test_logits_are_taken_out_of_what_models_return():
    logits = torch.randn(2, 3)
    assert logits_of({"logits": logits, "features": torch.randn(2, 48)}) is logits
    assert logits_of({"loss": torch.tensor(1.0), "scores": logits}) is logits
    assert logits_of((logits, None)) is logits
    assert logits_of((torch.tensor(1.0), logits)) is logits
    assert logits_of(type("Output", (), {"logits": logits})()) is logits
    assert torch.equal(logits_of(logits[:, 0]), logits[:, :1])
    several = (torch.randn(2, 48), logits)
    for wrong in (torch.randn(2, 3, 4), "text", {"loss": logits[0]}, None, several):
        with pytest.raises(UnreadableModelError, match=r"logits of shape \[B, C\].*`forward`"):
            logits_of(wrong)


def test_models_that_embed_images_and_texts_are_pointed_to_prompts():
    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = vit()

        def encode_image(self, images):
            return self.visual(images)

        def encode_text(self, texts):
            return texts

        def forward(self, images):
            return self.encode_image(images), None, 1.0

    model = Towers()
    texts = torch.randn(3, model.visual.num_classes)
    with pytest.raises(UnreadableModelError, match=r"explain .*text_prompts\(model, tokenizer, p"):
        read_token_model(model, IMAGES)

    def similarities(images):
        return nn.functional.normalize(model.encode_image(images), dim=-1) @ texts.T

    assert len(read_token_model(model, IMAGES, forward=similarities).blocks) == 2
