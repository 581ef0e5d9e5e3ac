"""A gradient under LIBRA computes the matrix products of an ordinary one, and none for weights."""

import pytest
import timm
import torch

import gradient_work

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def measured(model, *gradients, size=32):
    images = torch.randn(2, 3, size, size)
    return [gradient_work.work(model, images, gradient_work.GRADIENTS[g]) for g in gradients]


@pytest.mark.parametrize("frozen", [False, True])
def test_no_gradient_of_a_weight_is_computed(frozen):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **VIT).eval()
    ordinary = measured(model, "plain gradient", "plain gradient and all weights")
    model.requires_grad_(not frozen)
    found = measured(model, "LIBRA", "LIBRA with all biases")
    plain, weights = ordinary
    for work in found:
        assert work.flops == plain.flops
        assert work.products == plain.products
    assert weights.flops == pytest.approx(2 * plain.flops, rel=0.05)
    assert weights.products == 2 * plain.products - 1  # one convolution makes both its gradients


def test_explaining_takes_hardly_more_memory_than_a_plain_gradient():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **VIT | {"depth": 8}).eval()
    images = torch.randn(4, 3, 32, 32)
    plain = gradient_work.work(model, images, gradient_work.GRADIENTS["plain gradient"]).peak
    assert gradient_work.peak_of_explain(model, images, "fullgrad_plus") < 1.05 * plain

    def with_gradients(captured):
        return captured.gradients[0].sum(2) + captured.token_biases[0]

    assert gradient_work.peak_of_explain(model, images, with_gradients) > 1.05 * plain


def test_eager_attention_with_held_weights_saves_products():
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=5, img_size=56, embed_dim=24, depths=(2, 1),
        num_heads=(2, 4),
    ).eval()  # fmt: skip
    libra, plain = measured(model, "LIBRA", "plain gradient", size=56)
    assert libra.flops < plain.flops
    assert libra.products < plain.products
