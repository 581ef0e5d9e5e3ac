"""FullGrad adds up to the logit at every block, under LIBRA and not under PLAIN, in float64."""

import pytest
import timm
import torch

from libragrad_lightning.attribution import logit
from libragrad_lightning.attribution.capture import capture
from libragrad_lightning.attribution.explaining import explain_tokens
from libragrad_lightning.attribution.rewards import reward_gradient
from libragrad_lightning.backward import LIBRA, PLAIN
from libragrad_lightning.models import explanation_state, read_token_model

FAMILIES = {
    "vit": ("vit_tiny_patch16_224", {}),
    "vit_gap": ("vit_tiny_patch16_224", {"global_pool": "avg", "class_token": False}),
    "deit3": ("deit3_small_patch16_224", {}),
    "clip": ("vit_base_patch16_clip_224", {}),
    "clip_quickgelu": ("vit_base_patch16_clip_quickgelu_224", {}),
    "siglip": ("vit_base_patch16_siglip_224", {}),
    "siglip_gap": ("vit_base_patch16_siglip_gap_224", {}),
}
SMALL = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 4, "num_heads": 3}


def random_model(family):
    name, kwargs = FAMILIES[family]
    model = timm.create_model(name, num_classes=6, **SMALL, **kwargs).eval().double()
    for p in model.parameters():
        p.data.normal_(0, 0.5 if p.dim() == 1 else p[0].numel() ** -0.5)
    for m in model.modules():
        if isinstance(m, torch.nn.LayerNorm):
            m.weight.data += 1
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_block_is_complete_under_libra_alone(family):
    model = random_model(family)
    images = torch.randn(3, 3, 64, 64).double()
    plain_forward = model(images)
    with explanation_state(model):
        recording = read_token_model(model, images).record(images)
        target = torch.tensor([0, 3, 5])
        gradient = reward_gradient(recording.logits.detach(), target, logit)
        libra = capture(recording, gradient, LIBRA, retain_graph=True).fullgrad_sums()
        plain = capture(recording, gradient, PLAIN).fullgrad_sums()
    logits = recording.logits.detach()
    assert torch.equal(logits, plain_forward)
    chosen = logit(logits, target)
    assert libra.shape == (4, 3)
    assert ((libra - chosen).abs() / chosen.abs()).max() <= 1e-9
    assert ((plain - chosen).abs() / chosen.abs()).mean() > 1e-2


@pytest.mark.parametrize("family", ["vit", "siglip"])
def test_frozen_parameters_count_as_biases_all_the_same(family):
    model = random_model(family)
    images = torch.randn(2, 3, 64, 64).double()
    read = read_token_model(model, images)
    sums = []
    for frozen in (False, True):
        model.requires_grad_(not frozen)
        with torch.no_grad():
            alone = model(images)
        with explanation_state(model):
            (explanation,) = explain_tokens(read, images)
        sums.append(explanation.reward_sums)
        assert torch.equal(explanation.logits, alone)
        assert all(p.requires_grad is not frozen for p in model.parameters())
    torch.testing.assert_close(*sums, rtol=1e-12, atol=1e-12)


def test_the_parts_of_an_explanation_fit_together():
    model = random_model("vit")
    images = torch.randn(2, 3, 64, 64).double()
    read = read_token_model(model, images)
    with explanation_state(model):
        plain, libra = explain_tokens(
            read, images, torch.tensor([1, 2]), rules=(PLAIN, LIBRA), target="label", reward=logit
        )
    assert libra.attribution.shape == (2, 4, 4)
    assert libra.prefix.shape == (2, 1)
    assert libra.heatmap((64, 64)).shape == (2, 64, 64)
    assert libra.target.tolist() == [1, 2]
    assert not torch.allclose(plain.attribution, libra.attribution)
    assert not libra.attribution.requires_grad
