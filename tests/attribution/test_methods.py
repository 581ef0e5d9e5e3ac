"""Every method on every family: finite maps of the right grid, or a sentence that says why not."""

import functools

import pytest
import timm
import torch
from captum.attr import InputXGradient, Saliency
from captum.attr import IntegratedGradients as CaptumIntegratedGradients

from libragrad_lightning.attribution import (
    METHODS,
    IntegratedGradients,
    SmoothGrad,
    logit,
    probability,
)
from libragrad_lightning.attribution.capture import capture
from libragrad_lightning.attribution.explaining import explain_tokens
from libragrad_lightning.attribution.methods import attribution_method
from libragrad_lightning.attribution.rewards import reward_gradient
from libragrad_lightning.backward import LIBRA, PLAIN, LibraGradError
from libragrad_lightning.models import explanation_state, read_token_model

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
FAMILIES = {
    "vit_tiny_patch16_224": (VIT, 32),
    "deit3_small_patch16_224": (VIT, 32),
    "vit_base_patch16_clip_224": (VIT, 32),
    "vit_base_patch16_siglip_224": (VIT, 32),
    "vit_base_patch16_siglip_gap_224": (VIT, 32),
    "vit_small_patch14_reg4_dinov2": (VIT, 32),
    "eva02_tiny_patch14_224": (VIT, 32),
    "vit_small_patch16_dinov3": (VIT, 32),
    "beitv2_base_patch16_224": (VIT, 32),
    "flexivit_small": (VIT, 32),
    "cait_xxs24_224": (VIT, 32),
    "xcit_nano_12_p16_224": ({"depth": 2}, 64),
    "naflexvit_base_patch16_gap": ({"depth": 2, "embed_dim": 48, "num_heads": 2}, 64),
    "pvt_v2_b0": ({"depths": (1, 1, 1, 1)}, 64),
    "mixer_s32_224": ({}, 224),
    "gmixer_24_224": ({}, 224),
    "resmlp_12_224": ({}, 224),
    "swin_tiny_patch4_window7_224": (
        {"depths": (1, 1, 1, 1), "img_size": 64, "window_size": 4},
        64,
    ),
    "hiera_tiny_224": ({"img_size": 64}, 64),
    "convnext_atto": ({"depths": (1, 1, 1, 1)}, 64),
    "resnet10t": ({}, 64),
    "efficientnet_lite0": ({}, 64),
}
MIXERS = ("mixer_s32_224", "gmixer_24_224", "resmlp_12_224")
SEVERAL_PASSES = {
    "integrated_gradients": IntegratedGradients(steps=2),
    "smoothgrad": SmoothGrad(samples=2),
}
NO_ATTENTION = "one self-attention over all tokens in every block"
NO_CLASS_TOKEN = "no class token"
NOT_ALONE = "does not take its tokens one by one"
NO_PRODUCT = "its attention is no softmax of their products"
REFUSALS = (NO_ATTENTION, NO_CLASS_TOKEN, NOT_ALONE, NO_PRODUCT)


@functools.cache
def family(name):
    arguments, size = FAMILIES[name]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **arguments).eval()
    if name in MIXERS:  # which take no depth
        model.blocks = model.blocks[:2]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    images = torch.randn(4, 3, size, size)
    return model, images, read_token_model(model, images)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.rotating
def test_every_method_gives_a_finite_map_or_a_sentence(name):
    torch.set_num_threads(1)
    model, images, read = family(name)
    given, refused = set(), []
    left_out = {"integrated_gradients_weighted"}
    if name in MIXERS:  # which take images of 224 x 224 alone, and it a pass for every patch
        left_out.add("caap")
    with explanation_state(model):
        for method in METHODS.keys() - left_out:
            function = SEVERAL_PASSES.get(method, METHODS[method])
            try:
                explanations = explain_tokens(
                    read, images, rules=(PLAIN, LIBRA), method=function, reward=probability
                )
            except LibraGradError as error:
                refused.append(str(error))
                continue
            given.add(method)
            for explanation in explanations:
                assert explanation.attribution.shape == (4, *read.grid(images))
                assert explanation.attribution.isfinite().all()
                assert explanation.attribution.flatten(1).std(1).min() > 0
    assert all(any(s in sentence for s in REFUSALS) for sentence in refused)
    assert {"fullgrad_plus", "gradcam_plus", "smoothgrad", "random"} <= given
    if name.startswith(("vit_tiny", "deit3", "eva02", "beit", "vit_base_patch16_clip", "flexivit")):
        relative = {"maskclip"} if name.startswith("beit") else set()
        assert given == METHODS.keys() - {"integrated_gradients_weighted"} - relative
    if name.startswith(("mixer", "resnet", "convnext", "swin")):
        assert not given & {"attcat", "genatt", "raw_attention", "tokentm", "attention_rollout"}


@functools.cache
def double_vit():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **VIT).eval().double()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.3)
    images = torch.randn(3, 3, 32, 32).double()
    return model, images, read_token_model(model, images)


def ours(method):
    model, images, read = double_vit()
    with explanation_state(model):
        (explanation,) = explain_tokens(
            read,
            images,
            rules=(PLAIN,),
            method=attribution_method(method),
            target=2,
            reward=logit,
        )
    return torch.cat([explanation.prefix, explanation.attribution.flatten(1)], 1)


def captums(attributor, **arguments):
    model, images, read = double_vit()

    def forward(tokens):
        repeated = images.repeat(len(tokens) // len(images), 1, 1, 1)
        return read.logits_from_tokens(repeated, tokens)

    with explanation_state(model):
        tokens = read.tokens(images).requires_grad_()
        return attributor(forward).attribute(tokens, target=2, **arguments).detach()


def test_integrated_gradients_are_those_of_captum():
    expected = captums(CaptumIntegratedGradients, n_steps=20, internal_batch_size=3).sum(-1)
    # captum rounds the steps to float32.
    torch.testing.assert_close(ours(IntegratedGradients(steps=20)), expected, rtol=1e-6, atol=1e-9)


def test_input_x_gradient_is_that_of_captum():
    torch.testing.assert_close(ours("input_x_gradient"), captums(InputXGradient).sum(-1))


def test_saliency_is_that_of_captum():
    torch.testing.assert_close(ours("saliency"), captums(Saliency, abs=False).norm(dim=-1))


def test_integrated_gradients_add_up_to_the_difference_from_the_baseline():
    model, images, read = double_vit()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    for norm in norms:
        norm.eps = 1.0  # else the first norm is almost singular at the baseline
    with torch.no_grad():
        tokens = read.tokens(images)
        at_zero = read.logits_from_tokens(images, torch.zeros_like(tokens))[:, 2]
        expected = read.logits(images)[:, 2] - at_zero
    total = ours(IntegratedGradients(steps=60)).sum(1)
    weighted = ours("integrated_gradients_weighted").sum(1)
    for norm in norms:
        norm.eps = 1e-6
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-9)
    assert (weighted - expected).abs().min() > 1e-4


def test_smoothgrad_without_noise_is_saliency():
    torch.testing.assert_close(ours(SmoothGrad(samples=2, noise=0.0)), ours("saliency"))


def test_skipplus_is_plus_less_the_first_half_of_the_levels():
    levels = [ours(lambda captured, i=i: captured.input_x_gradient(i)) for i in range(3)]
    torch.testing.assert_close(ours("input_x_gradient_skip_plus"), levels[1] + levels[2])
    torch.testing.assert_close(ours("input_x_gradient_mean"), sum(levels) / 3)
    biases = [ours(lambda captured, i=i: captured.token_biases[i]) for i in range(3)]
    assert (biases[1] - biases[0]).abs().max() > 1e-3
    expected = levels[1] + levels[2] + biases[1]
    torch.testing.assert_close(ours("fullgrad_skip_plus"), expected)


def test_methods_that_run_the_model_again_say_so_without_it():
    model, images, read = double_vit()
    with explanation_state(model):
        recording = read.record(images)
        target = torch.zeros(3, dtype=torch.long)
        captured = capture(recording, reward_gradient(recording.logits.detach(), target, logit))
    with pytest.raises(LibraGradError, match=r"runs the model several times.*`explain`"):
        IntegratedGradients()(captured)
