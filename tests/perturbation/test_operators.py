"""Perturbations against pictures made by hand, published curves, and what must hold of them."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import nn

from libragrad_lightning.models import (
    Axes,
    FeatureView,
    Level,
    Point,
    TokenModel,
    UnreadableModelError,
    read_token_model,
)
from libragrad_lightning.perturbation import (
    PERTURBATIONS,
    blur_fill,
    deletion_logits,
    insertion_logits,
    mean_fill,
    noise_fill,
    zero_fill,
)
from libragrad_lightning.perturbation.operators import Autocast, perturbation_operator

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()


def vit(**kwargs):
    torch.manual_seed(1)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **(SMALL | kwargs)).eval()
    for p in model.parameters():
        p.data.normal_(0, 0.3)
    return model.double().requires_grad_(False)


def pixel_sum(weights=None):
    """f(x) = sum of (weighted) pixels, each of which is a patch."""
    pixels = nn.Identity()

    def forward(images):
        x = pixels(images)
        return (x if weights is None else x * weights).flatten(1).sum(1, keepdim=True)

    return TokenModel(forward, (Level((Point(pixels),), (Axes.CHANNELS_FIRST,)),), (pixels,))


PUBLISHED = [
    # pixels, deleted fractions, deletion curve, insertion curve
    ([[0.4, 0.3], [0.2, 0.1]], (0, 0.5, 1), [1, 0.3, 0], [0, 0.7, 1]),
    ([[0.3, 0.25, 0.2, 0.15, 0.1]], (0, 0.4, 0.8, 1), [1, 0.45, 0.1, 0], [0, 0.55, 0.9, 1]),
]


@pytest.mark.parametrize(("pixels", "levels", "deletion", "insertion"), PUBLISHED)
@pytest.mark.parametrize("operator", ["pixels_zero", "zero_tokens", "tokens"])
def test_published_curves(pixels, levels, deletion, insertion, operator):
    image = torch.tensor(pixels, dtype=torch.float64)[None, None]
    arguments = (pixel_sum(), image, {"x": image[:, 0]}, levels)
    deleted = deletion_logits(*arguments, perturbation=operator)["x"].most_influential_first
    inserted = insertion_logits(*arguments, perturbation=operator)["x"].most_influential_first
    np.testing.assert_allclose(deleted.flatten(), deletion, atol=1e-12)
    np.testing.assert_allclose(inserted.flatten(), insertion, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "fill"),
    [
        ("pixels_zero", lambda x: torch.zeros_like(x)),
        ("pixels_mean", lambda x: x.mean((2, 3), keepdim=True) + torch.zeros_like(x)),
        ("pixels_blur", blur_fill),
        ("pixels_noise", noise_fill),
    ],
)
@pytest.mark.parametrize("batch_size", [2, 100])
def test_pixels_of_deleted_patches_are_replaced(name, fill, batch_size):
    model = vit()
    read = read_token_model(model, IMAGES)
    scores = torch.randn(3, 4, 4)
    levels = (0.25, 0.5)
    result = deletion_logits(read, IMAGES, {"a": scores}, levels, batch_size, name)["a"]
    assert result.perturbation == name
    for s, level in enumerate(levels):
        for i in range(3):
            order = scores[i].flatten().argsort(descending=True)
            picture, filling = IMAGES[i].clone(), fill(IMAGES)[i]
            for patch in order[: int(level * 16)].tolist():
                rows = slice(patch // 4 * 8, patch // 4 * 8 + 8)
                columns = slice(patch % 4 * 8, patch % 4 * 8 + 8)
                picture[:, rows, columns] = filling[:, rows, columns]
            torch.testing.assert_close(result.most_influential_first[i, s], model(picture[None])[0])


def test_every_pixel_belongs_to_the_cell_that_reads_it():
    model = pixel_sum()
    image = torch.rand(1, 1, 5, 7, dtype=torch.float64) + 1
    pixel = nn.Identity()

    def forward(images):
        return model.forward(images) + 0 * pixel(F.avg_pool2d(images, (2, 3))).sum()

    level = Level((Point(pixel),), (Axes.CHANNELS_FIRST,))
    coarse = TokenModel(forward, (level,), (pixel,))
    coarse.set_views(image, (FeatureView(Axes.CHANNELS_FIRST, (2, 2)),))
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    levels = (0.25, 0.5, 0.75)
    found = deletion_logits(coarse, image, {"a": scores}, levels, perturbation="pixels_zero")["a"]
    row, column = torch.arange(5) // 2, torch.arange(7) // 3
    cell = row[:, None] * 2 + column
    cell[4:], cell[:, 6:] = 4, 4  # no cell reads the last row and column
    expected = [float(image[0, 0][cell > deleted].sum()) for deleted in range(3)]
    np.testing.assert_allclose(found.most_influential_first.flatten(), expected, atol=1e-12)


def test_a_function_may_say_what_replaces_pixels():
    read = read_token_model(vit(), IMAGES)
    scores = {"a": torch.randn(3, 16)}
    mine = deletion_logits(read, IMAGES, scores, perturbation=lambda x: 0 * x)["a"]
    zero = deletion_logits(read, IMAGES, scores, perturbation="pixels_zero")["a"]
    torch.testing.assert_close(mine.most_influential_first, zero.most_influential_first)
    assert mine.perturbation == "pixels"


def test_blur_is_that_of_scipy_away_from_the_edges():
    blurred = blur_fill(IMAGES, 0.05)[0, 0].numpy()
    expected = gaussian_filter(IMAGES[0, 0].numpy(), 1.6, mode="mirror", truncate=5 / 1.6)
    np.testing.assert_allclose(blurred, expected, atol=1e-3)


def test_the_blur_of_a_long_image_reaches_no_farther_than_its_sides():
    image = torch.randn(1, 1, 4, 16, dtype=torch.float64)
    expected = gaussian_filter(image[0, 0].numpy(), 2.0, mode="mirror", radius=(3, 6))
    np.testing.assert_allclose(blur_fill(image, 0.5)[0, 0], expected, atol=1e-6)
    turned = blur_fill(image.transpose(2, 3), 0.5).transpose(2, 3)
    torch.testing.assert_close(turned, blur_fill(image, 0.5))


def test_what_replaces_the_pixels_of_an_image_does_not_depend_on_others():
    for fill in (zero_fill, mean_fill, blur_fill, noise_fill):
        torch.testing.assert_close(fill(IMAGES)[1:2], fill(IMAGES[1:2]))


def test_fills_keep_what_they_promise():
    assert zero_fill(IMAGES).abs().max() == 0
    torch.testing.assert_close(mean_fill(IMAGES).mean((2, 3)), IMAGES.mean((2, 3)))
    large = torch.randn(1, 3, 256, 256).double() * 3 + 2
    noise = noise_fill(large)
    assert torch.equal(noise, noise_fill(large))
    torch.testing.assert_close(noise.mean((2, 3)), large.mean((2, 3)), atol=0.1, rtol=0)
    torch.testing.assert_close(noise.std((2, 3)), large.std((2, 3)), atol=0.1, rtol=0)


@pytest.mark.parametrize("operator", PERTURBATIONS)
def test_nothing_deleted_is_the_intact_image(operator):
    model = vit()
    read = read_token_model(model, IMAGES)
    result = deletion_logits(
        read, IMAGES, {"a": torch.randn(3, 16)}, (0.0,), perturbation=operator
    )["a"]
    torch.testing.assert_close(result.most_influential_first[:, 0], model(IMAGES))
    torch.testing.assert_close(result.least_influential_first[:, 0], model(IMAGES))


def test_everything_deleted_needs_a_prefix_token():
    scores = {"a": torch.randn(3, 16)}
    kept = deletion_logits(read_token_model(vit(), IMAGES), IMAGES, scores, (1.0,))["a"]
    assert kept.most_influential_first.isfinite().all()
    without = read_token_model(vit(class_token=False, global_pool="avg"), IMAGES)
    with pytest.raises(ValueError, match=r"leaves nothing .* below 1 for deletion"):
        deletion_logits(without, IMAGES, scores, (1.0,))


def test_models_that_need_all_tokens_refuse_to_drop_some():
    model = timm.create_model("beit_base_patch16_224", num_classes=5, **SMALL).eval().double()
    read = read_token_model(model, IMAGES)
    with pytest.raises(UnreadableModelError, match=r"cannot be left out .*'zero_tokens'"):
        deletion_logits(read, IMAGES, {"a": torch.randn(3, 16)}, perturbation="drop_tokens")
    chosen = deletion_logits(read, IMAGES, {"a": torch.randn(3, 16)})["a"]
    assert chosen.perturbation == "zero_tokens"


@pytest.mark.parametrize(
    ("scores", "operator", "sentence"),
    [
        ({"a": torch.randn(2, 16)}, "tokens", r"`scores` must hold attributions .* for 3 images"),
        ({"a": torch.randn(3, 16), "b": torch.randn(3, 9)}, "tokens", "`scores` must hold"),
        ({"a": torch.randn(3, 16)}, "blur", "Unknown perturbation 'blur'; `perturbation` takes"),
    ],
)
def test_arguments_that_cannot_work(scores, operator, sentence):
    read = read_token_model(vit(), IMAGES)
    with pytest.raises(ValueError, match=sentence):
        deletion_logits(read, IMAGES, scores, perturbation=operator)


def test_deeper_levels_cost_less_and_fill_the_device():
    model = vit()
    read = read_token_model(model, IMAGES)
    deletion_logits(read, IMAGES, {"a": torch.randn(3, 16)})  # looks at the model once
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[:2])))
    deletion_logits(read, IMAGES, {"a": torch.randn(3, 16)}, (0.0, 0.5, 0.75), batch_size=4)
    after_z0 = [shape for shape in seen if shape not in ((1, 17), (3, 17))]
    assert after_z0 == [(4, 17), (2, 17), (6, 9), (6, 5)]


def test_the_layers_before_the_tokens_see_one_image_only():
    model = vit()
    read = read_token_model(model, IMAGES)
    deletion_logits(read, IMAGES, {"a": torch.randn(3, 16)})
    seen = []
    model.patch_embed.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    deletion_logits(read, IMAGES, {"a": torch.randn(3, 16)}, (0.25, 0.5), batch_size=64)
    assert seen.count(3) == 1  # z0; every other pass goes on from there
    assert max(seen) == 3
    assert seen[-2:] == [1, 1]


def test_models_that_remember_the_size_of_the_batch_get_all_images():
    model = timm.create_model("xcit_nano_12_p16_224", num_classes=5, depth=2).eval()
    images = torch.randn(2, 3, 64, 64)
    read = read_token_model(model, images)
    result = deletion_logits(read, images, {"a": torch.randn(2, 16)}, (0.0,))["a"]
    with torch.no_grad():
        torch.testing.assert_close(result.most_influential_first[:, 0], model(images))


def test_the_identity_attribution_of_a_linear_model_has_the_best_gain():
    weights = torch.randn(1, 1, 4, 4).double()
    image = torch.randn(1, 1, 4, 4).double()
    model = pixel_sum(weights)

    def gain(score):
        found = deletion_logits(model, image, {"a": score}, perturbation="pixels_zero")["a"]
        return float((found.least_influential_first - found.most_influential_first).mean())

    best = gain((weights * image)[:, 0])
    others = [gain(torch.randn(1, 4, 4)) for _ in range(200)]
    assert best > max(others)
    assert abs(np.mean(others)) < 3 * np.std(others) / np.sqrt(200)


@pytest.mark.parametrize("operator", PERTURBATIONS)
def test_a_lower_precision_is_that_of_forward_passes_alone(operator):
    """Deletion in bfloat16 is autocast around the forward passes from the same z0."""
    images = IMAGES.float()
    model = read_token_model(vit().float(), images)
    inner = perturbation_operator(operator, model, images)
    lower = Autocast(inner)
    assert (lower.name, lower.shortens) == (f"{inner.name} in bfloat16", inner.shortens)
    without_four = (torch.arange(2), torch.tensor([[True] * 12 + [False] * 4] * 2), 12)
    masked = inner.begin(model, images)
    exact, found = masked(*without_four), lower.begin(model, images)(*without_four)
    with torch.autocast("cpu", torch.bfloat16):
        expected = masked(*without_four)
    assert (expected.dtype, found.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(found, expected.float())
    assert 0 < (found - exact).abs().max() < 0.05 * exact.std()
