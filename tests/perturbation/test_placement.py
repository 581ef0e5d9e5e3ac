"""A cell of a map lies on the pixels that its token reads, for any size of the image and model."""

import pytest
import timm
import torch
from torch import nn

from libragrad_lightning import explain
from libragrad_lightning.heatmaps import positive_heatmap, share_heat, signed_heatmap
from libragrad_lightning.models import explanation_state, read_token_model
from libragrad_lightning.perturbation import deletion_logits
from libragrad_lightning.placement import Placement, Span

pytestmark = pytest.mark.rotating

SIZES = ((40, 40), (69, 69), (47, 90), (75, 53), (61, 33), (101, 43))


def small(name, **options):
    return lambda: timm.create_model(name, num_classes=3, **options).eval()


class Around(nn.Module):
    """Works on a part of the image, or on more than it."""

    def __init__(self, change):
        super().__init__()
        self.change, self.model = change, floored(8)()

    def forward(self, images):
        return self.model(self.change(images))


def vit(patch=8, **options):
    options = {"dynamic_img_size": True, "depth": 2, "embed_dim": 24, "num_heads": 2} | options
    return small("vit_tiny_patch16_224", patch_size=patch, **options)


class FullPatches(nn.Module):
    """Embeds whole patches alone, and leaves out what remains at the right and below."""

    def __init__(self, patch):
        super().__init__()
        self.proj, self.grid_size = nn.Conv2d(3, 24, patch, patch), (3, 3)

    def forward(self, images):
        return self.proj(images).permute(0, 2, 3, 1)


def floored(patch, **options):
    def make():
        model = vit(patch, img_size=3 * patch, **options)()
        model.patch_embed = FullPatches(patch)
        return model

    return make


def cropped(images):
    return images[..., 5:-3, 4:-4]


def padded(images):
    return nn.functional.pad(images, (3, 2, 3, 2))


MODELS = {
    "patch_8": floored(8),
    "patch_14": floored(14),
    "padded_to_patches": vit(16, dynamic_img_pad=True),
    "no_class_token": floored(10, class_token=False, global_pool="avg"),
    "registers": floored(12, reg_tokens=2),
    "cropped_borders": lambda: Around(cropped),
    "padded_borders": lambda: Around(padded),
    "convnext": small("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 16, 16)),
}
MORE = {
    **{f"patch_{p}_of_{d}": floored(p, depth=d) for p in (6, 9, 11, 13) for d in (1, 3)},
    **{f"padded_to_{p}": vit(p, dynamic_img_pad=True) for p in (7, 10, 15)},
    "strided_padded": lambda: Around(lambda x: nn.functional.pad(x, (0, 9, 0, 9))),
}


def read_by(read, images):
    """Return which pixels each token reads `[h * w, H, W]`, one token at a time."""
    leaf = images.clone().requires_grad_()
    recording = []
    point = read.levels[0].points[0]
    handle = point.module.register_forward_pre_hook(lambda _, args: recording.append(args[0]))
    read.logits(leaf)
    handle.remove()
    view = read.views(images)[0]
    tokens = view.tokens(recording[0])[0, view.prefix :]
    found = []
    for token in tokens:
        (gradient,) = torch.autograd.grad(token.square().sum(), leaf, retain_graph=True)
        found.append(gradient[0].abs().sum(0) > 0)
    return torch.stack(found)


def assert_cells_lie_where_they_are_read(model, size):
    images = torch.randn(1, 3, *size)
    with explanation_state(model):
        read = read_token_model(model, images)
        seen, placement, grid = read_by(read, images), read.placement(images), read.grid(images)
    one_hot = torch.eye(grid[0] * grid[1]).unflatten(1, grid)
    lies = placement.on_pixels(one_hot, size, elsewhere=0.0) > 0
    # A token may read nothing of a padded border, and then there is nothing of it to show.
    assert torch.equal(lies, seen), size


@pytest.mark.parametrize("name", MODELS)
def test_one_hot_cells_lie_on_the_pixels_that_their_tokens_read(name):
    model = MODELS[name]()
    for size in SIZES:
        assert_cells_lie_where_they_are_read(model, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_one_hot_cells_lie_there_in_many_models(name):
    model = MORE[name]()
    for size in SIZES:
        assert_cells_lie_where_they_are_read(model, size)


@pytest.mark.parametrize("name", ["patch_14", "padded_to_patches", "cropped_borders"])
def test_replacing_pixels_of_a_patch_changes_what_its_token_read_and_nothing_else(name):
    model, size = MODELS[name](), (69, 40)
    images = torch.randn(2, 3, *size)
    with explanation_state(model):
        read = read_token_model(model, images)
        grid, seen = read.grid(images), read_by(read, images[:1])
        scores = torch.rand(2, grid[0] * grid[1])
        count = len(seen) // 2
        found = deletion_logits(
            read, images, {"a": scores}, (count / len(seen),), perturbation="pixels_zero"
        )["a"].most_influential_first[:, 0]
        for row in (0, 1):
            deleted = scores[row].argsort(descending=True)[:count]
            left = images[row : row + 1] * ~seen[deleted].any(0)
            torch.testing.assert_close(found[row], read.logits(left)[0].detach())


@pytest.mark.parametrize("name", ["resnet18", "test_mambaout"])
def test_where_stems_overlap_patches_lie_around_what_they_read(name):
    model, size = small(name)(), (75, 53)
    images = torch.randn(1, 3, *size)
    with explanation_state(model):
        read = read_token_model(model, images)
        placement, grid = read.placement(images), read.grid(images)
        step = round(size[0] / grid[0])
        inner = slice(2, -2)
        for axis, span in enumerate((placement.rows, placement.columns)):
            middles = torch.linspace(0, 1, 2 * grid[axis] + 1)[1::2]
            middles = (span.first + middles * (span.last - span.first)) * size[axis]
            # Convolutions with padding lie around every so many pixels, from the first one on.
            expected = torch.arange(grid[axis]) * step + 0.5
            assert (middles - expected)[inner].abs().max() <= step / 8


def test_maps_and_pictures_lie_there_too():
    model, images = MODELS["patch_14"](), torch.randn(2, 3, 40, 69)
    found = explain(model, images)
    assert found.placement == Placement(Span(0, 28 / 40, 0, 28 / 40), Span(0, 56 / 69, 0, 56 / 69))
    assert found[:1].placement == found.placement == found.to("cpu").placement
    heat = found.heatmap((80, 138))
    assert heat[:, 56:].eq(0).all()
    assert heat[:, :, 112:].eq(0).all()
    even = Placement().upsampled(found.attribution, (56, 112))
    torch.testing.assert_close(heat[:, :56, :112], even)
    for drawn in (positive_heatmap, signed_heatmap, share_heat):
        shown = drawn(found.attribution, (80, 138), found.placement)
        assert shown[:, :56, :112].any()
        assert not shown[:, 56:].any()
        assert not shown[:, :, 112:].any()


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (16, 16)])
@pytest.mark.parametrize("size", [(16, 16), (40, 37), (224, 7)])
def test_patches_that_divide_an_image_evenly_are_upsampled_as_torch_does(grid, size):
    maps = torch.randn(2, *grid, dtype=torch.float64)
    expected = nn.functional.interpolate(maps[:, None], size, mode="bicubic")[:, 0]
    torch.testing.assert_close(Placement().upsampled(maps, size), expected)


def test_a_stem_without_gradients_leaves_patches_evenly():
    model = Around(torch.detach)
    images = torch.randn(1, 3, 40, 40)
    with explanation_state(model):
        read = read_token_model(model.model, images)
        assert type(read)(model, read.levels, read.blocks).placement(images) == Placement()


@pytest.mark.parametrize("name", ["resnet18", "pvt_v2_b0", "convnext_atto"])
def test_maps_stay_where_they_are_while_weights_learn(name):
    """An audit is compared with those before, and with one that was resumed in between."""
    images, found = torch.randn(1, 3, 64, 64), []
    for seed in range(3):
        torch.manual_seed(seed)
        model = timm.create_model(name, num_classes=3).eval()
        found.append(read_token_model(model, images).placement(images))
    assert found[0] == found[1] == found[2]
