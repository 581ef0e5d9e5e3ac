"""Deletion curves against a slow re-derivation that builds every perturbed sequence by hand."""

import math

import pytest
import timm
import torch

from libragrad_lightning.models import read_token_model
from libragrad_lightning.perturbation import LEVELS, deletion_logits

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def model_of(name="vit_tiny_patch16_224", **kwargs):
    model = timm.create_model(name, num_classes=5, **(SMALL | kwargs)).eval().double()
    for p in model.parameters():
        p.data.normal_(0, 0.3)
    return model.requires_grad_(False)


def by_hand(model, images, scores, level, most_first, prefix):
    """Delete patches one image at a time, without any of our code."""
    rows = []
    for image, score in zip(images, scores, strict=True):
        x = model._pos_embed(model.patch_embed(image[None]))
        n = score.numel()
        order = sorted(range(n), key=lambda i: (-float(score[i]), i))
        order = order if most_first else order[::-1]
        gone = set(order[: math.floor(level * n)])
        keep = list(range(prefix)) + [prefix + i for i in range(n) if i not in gone]
        x = model.norm(model.blocks(model.norm_pre(x[:, keep])))
        rows.append(model.forward_head(x))
    return torch.cat(rows)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch16_clip_224"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_logits_equal_those_of_sequences_cut_by_hand(name, batch_size):
    model = model_of(name)
    images = torch.randn(3, 3, 32, 32).double()
    scores = torch.randn(3, 16).double().round(decimals=0)  # heavy ties
    levels = (0.0, 0.1, 0.5, 0.9)
    read = read_token_model(model)
    result = deletion_logits(read, images, {"a": scores}, levels, batch_size)["a"]
    for i, level in enumerate(levels):
        for ours, most_first in (
            (result.most_influential_first, True),
            (result.least_influential_first, False),
        ):
            expected = by_hand(model, images, scores, level, most_first, 1)
            torch.testing.assert_close(ours[:, i], expected, rtol=1e-10, atol=1e-12)


def test_rankings_share_forward_passes_without_mixing():
    read = read_token_model(model_of())
    images = torch.randn(2, 3, 32, 32).double()
    a, b = torch.randn(2, 4, 4), torch.randn(2, 4, 4)
    both = deletion_logits(read, images, {"a": a, "b": b})
    for name, score in (("a", a), ("b", b)):
        alone = deletion_logits(read, images, {name: score})[name]
        torch.testing.assert_close(both[name].most_influential_first, alone.most_influential_first)
        torch.testing.assert_close(
            both[name].least_influential_first, alone.least_influential_first
        )
    assert both["a"].most_influential_first.shape == (2, len(LEVELS), 5)


def test_opposite_scores_swap_the_orders():
    read = read_token_model(model_of())
    images = torch.randn(2, 3, 32, 32).double()
    score = torch.randn(2, 16)
    result = deletion_logits(read, images, {"up": score, "down": -score})
    torch.testing.assert_close(
        result["up"].most_influential_first, result["down"].least_influential_first
    )


def test_models_with_positions_elsewhere_get_zeros_instead():
    model = timm.create_model("eva02_tiny_patch14_224", num_classes=5, depth=1).eval()
    read = read_token_model(model)
    images = torch.randn(1, 3, 224, 224)
    score = torch.randn(1, 256)
    result = deletion_logits(read, images, {"a": score}, (0.5,))["a"]
    tokens = read.tokens(images).clone()
    tokens[0, 1 + score[0].argsort(descending=True)[:128]] = 0
    with torch.no_grad():
        expected = read.logits_from_tokens(images, tokens)
    torch.testing.assert_close(result.most_influential_first[:, 0], expected)


@pytest.mark.parametrize("levels", [(), (-0.1,), (1.0,), (0.5, 1.5)])
def test_levels_out_of_range_are_refused(levels):
    read = read_token_model(model_of())
    with pytest.raises(ValueError, match="`levels` must be fractions"):
        deletion_logits(read, torch.randn(1, 3, 32, 32).double(), {"a": torch.randn(1, 16)}, levels)
