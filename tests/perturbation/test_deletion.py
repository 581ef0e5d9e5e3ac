"""Deletion curves against a slow re-derivation that builds every perturbed sequence by hand."""

import math

import pytest
import timm
import torch

from libragrad_lightning.models import read_token_model
from libragrad_lightning.perturbation import LEVELS, deletion_logits
from libragrad_lightning.perturbation.ranking import tie_breakers

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def model_of(name="vit_tiny_patch16_224", **kwargs):
    model = timm.create_model(name, num_classes=5, **(SMALL | kwargs)).eval().double()
    for p in model.parameters():
        p.data.normal_(0, 0.3)
    return model.requires_grad_(False)


def by_hand(model, images, scores, level, most_first, prefix):
    """Delete patches one image at a time, without any of our code but the draw of the ties."""
    rows = []
    drawn = tie_breakers(images, scores.shape[1]).tolist()
    for image, score, ties in zip(images, scores, drawn, strict=True):
        x = model._pos_embed(model.patch_embed(image[None]))
        n = score.numel()
        order = sorted(range(n), key=lambda i: (-float(score[i]), ties.index(i)))
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
    read = read_token_model(model, images)
    result = deletion_logits(read, images, {"a": scores}, levels, batch_size)["a"]
    for i, level in enumerate(levels):
        for ours, most_first in (
            (result.most_influential_first, True),
            (result.least_influential_first, False),
        ):
            expected = by_hand(model, images, scores, level, most_first, 1)
            torch.testing.assert_close(ours[:, i], expected, rtol=1e-10, atol=1e-12)


def test_rankings_share_forward_passes_without_mixing():
    images = torch.randn(2, 3, 32, 32).double()
    read = read_token_model(model_of(), images)
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
    images = torch.randn(2, 3, 32, 32).double()
    read = read_token_model(model_of(), images)
    score = torch.randn(2, 16)
    result = deletion_logits(read, images, {"up": score, "down": -score})
    torch.testing.assert_close(
        result["up"].most_influential_first, result["down"].least_influential_first
    )


def test_rotary_tables_are_read_at_the_patches_that_stay():
    model = timm.create_model("eva02_tiny_patch14_224", num_classes=5, depth=2).eval().double()
    images = torch.randn(1, 3, 224, 224).double()
    read = read_token_model(model, images)
    score = torch.randn(1, 256)
    result = deletion_logits(read, images, {"a": score}, (0.5,))["a"]
    kept = score[0].argsort(descending=True)[128:].sort().values
    with torch.no_grad():
        x, rope = model._pos_embed(model.patch_embed(images))[:2]
        x = x[:, torch.cat([torch.zeros(1, dtype=torch.long), kept + 1])]
        for block in model.blocks:
            x = block(x, rope=rope[kept])
        expected = model.forward_head(model.norm(x))
    torch.testing.assert_close(result.most_influential_first[:, 0], expected)


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "mixer_s32_224"])
def test_models_with_positions_in_their_blocks_get_zeros_instead(name):
    depth = {"depth": 1} if name.startswith("beit") else {}
    model = timm.create_model(name, num_classes=5, **depth).eval()
    images = torch.randn(1, 3, 224, 224)
    read = read_token_model(model, images)
    tokens = read.tokens(images).clone()
    prefix = read.prefix(images)
    patches = tokens.shape[1] - prefix
    score = torch.randn(1, patches)
    result = deletion_logits(read, images, {"a": score}, (0.5,))["a"]
    tokens[0, prefix + score[0].argsort(descending=True)[: patches // 2]] = 0
    with torch.no_grad():
        expected = read.logits_from_tokens(images, tokens)
    torch.testing.assert_close(result.most_influential_first[:, 0], expected)


@pytest.mark.parametrize("name", ["resnet10t", "swin_tiny_patch4_window7_224"])
def test_cells_of_feature_maps_are_zeroed_in_their_own_axes(name):
    model = timm.create_model(name, num_classes=5).eval()
    images = torch.randn(2, 3, 224, 224)
    read = read_token_model(model, images)
    rows, columns = read.grid(images)
    score = torch.arange(rows * columns).float().expand(2, -1)
    result = deletion_logits(read, images, {"a": score}, (0.5,))["a"]

    def upper_half(module, args):
        z0 = args[0].clone()
        axis = 2 if z0.shape[2:] == (rows, columns) else 1
        z0.narrow(axis, rows // 2, rows - rows // 2).zero_()
        return (z0, *args[1:])

    with torch.no_grad():
        handle = read.levels[0].points[0].module.register_forward_pre_hook(upper_half)
        expected = model(images)
        handle.remove()
    torch.testing.assert_close(result.most_influential_first[:, 0], expected)


@pytest.mark.parametrize("levels", [(), (-0.1,), (1.1,), (0.5, 1.5)])
def test_levels_out_of_range_are_refused(levels):
    images = torch.randn(1, 3, 32, 32).double()
    read = read_token_model(model_of(), images)
    with pytest.raises(ValueError, match="`levels` must be fractions"):
        deletion_logits(read, images, {"a": torch.randn(1, 16)}, levels)


@pytest.mark.parametrize("perturbation", ["drop_tokens", "zero_tokens"])
def test_equal_rankings_are_followed_once(perturbation):
    images = torch.randn(2, 3, 32, 32).double()
    model = model_of()
    read = read_token_model(model, images)
    score, other = torch.randn(2, 4, 4), torch.randn(2, 4, 4)
    rows = []
    model.head.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))

    def worked(scores):
        rows.clear()
        return deletion_logits(read, images, scores, perturbation=perturbation), sum(rows)

    worked({"a": score})  # the model is looked at in the first call only
    once, of_one = worked({"a": score})
    # The same ranking, other values; its reverse, whose MIF is the first one's LIF.
    twice, of_equal = worked({"a": score, "b": 2 * score + 1, "c": -score})
    both, of_two = worked({"a": score, "b": other})
    assert of_equal == of_one
    assert of_two > of_one
    for name, of in {"a": twice["a"], "b": twice["b"], "both": both["a"]}.items():
        torch.testing.assert_close(
            of.most_influential_first, once["a"].most_influential_first, msg=name
        )
    torch.testing.assert_close(twice["c"].most_influential_first, once["a"].least_influential_first)
