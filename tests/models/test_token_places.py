"""Where tokens lie is measured: by pixels, along the graph, and never by their number alone."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import swin_t

from libragrad_lightning.diagnosis import coverage
from libragrad_lightning.models import Axes, explanation_state, read_token_model
from libragrad_lightning.models.continuity import carried
from libragrad_lightning.models.places import Movement, moved_images, movement, places

pytestmark = pytest.mark.rotating


def sharp(order, grid, nowhere=()):
    """Return the movement of patches in an order, with tokens that lie nowhere in between."""
    rows, columns = grid
    cells = torch.tensor(order)
    down, right = (cells // columns + 0.5) / rows, (cells % columns + 0.5) / columns
    size = torch.ones(len(cells))
    for at in sorted(nowhere):
        pieces = (size, 0.0), (down, 0.3), (right, 0.7)
        size, down, right = (
            torch.cat([x[:at], torch.tensor([value]), x[at:]]) for x, value in pieces
        )
    return Movement(size.double(), down.double(), right.double())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_order_of_patches_is_found(data):
    grid = data.draw(st.tuples(st.integers(2, 7), st.integers(2, 7)))
    order = data.draw(st.permutations(range(grid[0] * grid[1])))
    nowhere = data.draw(st.sets(st.integers(0, len(order)), max_size=5))
    found = places(sharp(order, grid, nowhere), (16 * grid[0], 16 * grid[1]))
    assert found is not None
    assert (found.grid, found.prefix) == (grid, len(nowhere))
    kept = [i for i in range(len(order) + len(nowhere)) if i not in found.order[: found.prefix]]
    by_cell = {order[n]: i for n, i in enumerate(kept)}
    assert found.order[found.prefix :].tolist() == [by_cell[c] for c in range(len(order))]


def test_tokens_that_see_the_whole_image_are_no_patches():
    movement = sharp(range(16), (4, 4))
    both = [
        torch.cat([x, torch.tensor([0.5, 0.501]).double()]) for x in (movement.down, movement.right)
    ]
    found = places(Movement(torch.ones(18).double(), *both), (32, 32))
    assert (found.grid, found.prefix) == ((4, 4), 2)
    assert found.order[:2].tolist() == [16, 17]


@pytest.mark.parametrize("count", [2, 4, 8, 16, 49])
def test_latents_lie_in_no_grid(count):
    generator = torch.Generator().manual_seed(count)
    near = [0.5 + 0.04 * torch.randn(count, generator=generator).double() for _ in range(2)]
    assert places(Movement(torch.ones(count).double(), *near), (32, 32)) is None


def test_a_part_of_the_patches_is_no_grid():
    whole = sharp(range(16), (4, 4))
    assert places(whole.of(torch.arange(6)), (32, 32)) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 255.0])
def test_any_image_tells(dtype, scale):
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 16, 4, 4).to(dtype)
    image = (scale * torch.rand(1, 3, 16, 24)).to(dtype)
    with torch.no_grad():
        draws = [stem(moved_images(image, seed)).flatten(2).transpose(1, 2) for seed in range(8)]
    found = places(movement(draws), (16, 24))
    assert (found.grid, found.prefix, found.is_usual) == ((4, 6), 0, True)


@pytest.mark.parametrize(
    ("size", "count", "grid"), [((32, 64), 32, (4, 8)), ((64, 32), 33, (8, 4)), ((9, 9), 9, (3, 3))]
)
def test_where_nothing_is_a_number_the_grid_is_like_the_image(size, count, grid):
    nothing = torch.full((count,), torch.nan, dtype=torch.float64)
    found = places(Movement(nothing, nothing, nothing), size)
    assert (found.grid, found.prefix) == (grid, count - grid[0] * grid[1])
    assert found.is_usual


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_images_drawn_from_a_small_seed_tell_too(seed):
    # A model that norms its input does not see noise that is the image itself.
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    image[..., 8:24, 8:24] += 1
    model = timm.create_model("test_convnext", num_classes=4).eval()
    levels = read_token_model(model, image).located(image)
    assert [level.view.prefix for level in levels] == [0] * len(levels)
    assert all(part.order is None for level in levels for part in level.view.passes)


def test_images_that_are_not_finite_tell_too():
    image = torch.full((1, 3, 16, 16), torch.nan)
    assert moved_images(image).isfinite().all()


@pytest.mark.parametrize("size", [96, 128])
def test_channels_are_told_from_rows(size):
    # 96 channels on a grid of 24 to 32; at 384 pixels, as many of them as rows.
    model = swin_t(weights=None).eval()
    wide = nn.Sequential(nn.Upsample(scale_factor=384 / size), model)
    read = read_token_model(wide, torch.randn(1, 3, size, size))
    view = read.views(torch.randn(1, 3, size, size))[0]
    assert (view.axes, view.grid) == (Axes.CHANNELS_LAST, (96, 96))


def recorded(step):
    """Return tokens of an image twice, and what a step makes of them."""
    z = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0)).double()
    z = z.expand(2, -1, -1).clone().requires_grad_()
    return z, step(z)


NORM = nn.LayerNorm(8).double()
STEPS = {
    "residual": (lambda z: z + z.flip(1).softmax(2), [0, 1, 2, 3, 4, 5]),
    "post-norm": (lambda z: NORM(z + z.mean(1, keepdim=True).tanh()), [0, 1, 2, 3, 4, 5]),
    "turned": (lambda z: z.flip(1), [5, 4, 3, 2, 1, 0]),
    "picked": (lambda z: z[:, [2, 0, 1, 5, 4, 3]], [1, 2, 0, 5, 4, 3]),
    "in pairs": (lambda z: z.unflatten(1, (3, 2)).mean(2), [0, 0, 1, 1, 2, 2]),
    "merged": (lambda z: z.unflatten(1, (3, 2)).flatten(2), [0, 0, 1, 1, 2, 2]),
    "joined": (lambda z: torch.cat([z[:, :1] * 0 + 1, z], 1), [1, 2, 3, 4, 5, 6]),
    "mixed": (lambda z: torch.randn(6, 6).double() @ z, None),
}


@pytest.mark.parametrize("name", STEPS)
def test_tokens_are_followed_along_the_graph(name):
    step, expected = STEPS[name]
    features = recorded(step)
    (found,) = carried(features, [Axes.TOKENS] * 2)
    assert (None if found is None else found.tolist()) == expected


def test_hieras_levels_are_located_by_the_graph():
    model = timm.create_model("hiera_tiny_224", img_size=64).eval()
    images = torch.randn(1, 3, 64, 64)
    read = read_token_model(model, images)
    assert [v.grid for v in read.views(images)] == [(16, 16)] * 2 + [(8, 8)] * 2 + [(4, 4)] * 7 + [
        (2, 2)
    ]
    assert read.located_by == ("pixels", *["graph"] * 11)


def test_places_are_measured_once_for_every_size():
    model = timm.create_model("test_vit", dynamic_img_size=True).eval()
    sizes = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape)))
    read = read_token_model(model, torch.randn(1, 3, 64, 64))
    with explanation_state(model):
        sizes.clear()
        read.record(torch.randn(3, 3, 64, 64))
        assert [s[0] for s in sizes] == [3]
        sizes.clear()
        assert read.grid(torch.randn(3, 3, 96, 64)) == (6, 4)
        assert {s[2:] for s in sizes} == {(96, 64)}
        sizes.clear()
        assert read.grid(torch.randn(3, 3, 96, 64)) == (6, 4)
        assert not sizes


def test_the_coverage_report_lists_levels_and_what_told_them():
    model = timm.create_model("test_vit").eval()
    images = torch.randn(1, 3, 160, 160)
    report = coverage(model, images, tokens=read_token_model(model, images))
    assert [level.place for level in report.levels][1:] == [f"blocks.{i}" for i in range(1, 6)]
    assert {level.grid for level in report.levels} == {(10, 10)}
    assert "| 1 | blocks.1 | input of a module around a residual connection |" in report.markdown()
