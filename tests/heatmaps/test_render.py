"""Heat and colors, against the paper's recipe worked out again in numpy."""

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libragrad_lightning.heatmaps import (
    colorize,
    mask_overlay,
    overlay,
    positive_heatmap,
    signed_heatmap,
)


def cubic_kernel(x):
    """Cubic convolution with a = -0.75, PyTorch's bicubic without antialiasing."""
    a, x = -0.75, abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return 0.0


def interpolation_matrix(n_from, n_to):
    matrix = np.zeros((n_to, n_from))
    for row in range(n_to):
        position = (row + 0.5) * n_from / n_to - 0.5
        base = int(np.floor(position))
        for tap in range(base - 1, base + 3):
            matrix[row, np.clip(tap, 0, n_from - 1)] += cubic_kernel(position - tap)
    return matrix


def upsample(values, size):
    height, width = values.shape
    return interpolation_matrix(height, size[0]) @ values @ interpolation_matrix(width, size[1]).T


def reference_positive(values, size):
    positive = np.maximum(values, 0)
    heat = np.clip(upsample(positive / np.quantile(positive, 0.99), size), 0, 1)
    return (heat - heat.min()) / (heat.max() - heat.min())


def random_maps(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("size", [(9, 9), (14, 31), (64, 48)])
@pytest.mark.parametrize("grid", [(3, 3), (7, 5)])
def test_positive_heatmap_follows_the_recipe(grid, size):
    maps = random_maps(3, *grid, dtype=torch.float64)
    expected = np.stack([reference_positive(values.numpy(), size) for values in maps])
    np.testing.assert_allclose(positive_heatmap(maps, size), expected, atol=2e-6)


@pytest.mark.parametrize("size", [(9, 9), (14, 31)])
def test_signed_heatmap_follows_the_recipe(size):
    maps = random_maps(3, 6, 5, dtype=torch.float64)
    expected = np.stack(
        [
            np.clip(upsample(values / np.quantile(np.abs(values), 0.99), size), -1, 1)
            for values in maps.numpy()
        ]
    )
    np.testing.assert_allclose(signed_heatmap(maps, size), expected, atol=2e-6)


def test_heat_at_the_size_of_the_map_in_plain_numbers():
    maps = torch.tensor([[[4.0, 1.0], [-7.0, 2.0]]])
    # Sorted positive part: 0, 1, 2, 4; the quantile lies at position 2.97, hence 2 + 0.97 * 2.
    expected = torch.tensor([[[1.0, 1 / 3.94], [0.0, 2 / 3.94]]])
    torch.testing.assert_close(positive_heatmap(maps, (2, 2)), expected)


def test_maps_of_a_batch_are_scaled_one_by_one():
    maps = random_maps(2, 4, 4)
    alone = torch.cat([positive_heatmap(one[None], (8, 8)) for one in maps])
    together = positive_heatmap(maps * torch.tensor([1.0, 1e6])[:, None, None], (8, 8))
    torch.testing.assert_close(together, alone)


def test_sparse_map_with_zero_quantile_is_scaled_by_its_maximum():
    maps = torch.zeros(1, 20, 20)
    maps[0, 3, 4], maps[0, 10, 10] = 8.0, 2.0
    assert maps.flatten().quantile(0.99) == 0
    heat = positive_heatmap(maps, (20, 20))
    torch.testing.assert_close(heat, maps / 8)
    torch.testing.assert_close(signed_heatmap(-maps, (20, 20)), -maps / 8)
    beside_larger = torch.cat([maps, 5 * maps])
    expected = (maps / 8).expand(2, -1, -1)
    torch.testing.assert_close(signed_heatmap(beside_larger, (20, 20)), expected)


@pytest.mark.parametrize("value", [0.0, -3.0, 0.1, 7.0, 1e-30, 1e30])
def test_constant_map_gives_no_heat(value):
    assert not positive_heatmap(torch.full((2, 7, 7), value), (50, 33)).any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_map_with_a_bad_value_gives_zeros_and_spares_its_neighbors(bad):
    maps = random_maps(3, 5, 5)
    clean = positive_heatmap(maps, (9, 9)), signed_heatmap(maps, (9, 9))
    maps[1, 2, 2] = bad
    for heat, expected in zip(
        (positive_heatmap(maps, (9, 9)), signed_heatmap(maps, (9, 9))), clean, strict=True
    ):
        assert not heat[1].any()
        torch.testing.assert_close(heat[[0, 2]], expected[[0, 2]])


def test_extreme_outliers_stay_finite():
    maps = torch.full((1, 20, 20), 1e-300, dtype=torch.float64)
    maps[0, 5, 5:8] = 1.0
    maps[0, 0, 0] = 0.0
    heat = positive_heatmap(maps, (50, 50))
    assert heat.isfinite().all()
    assert heat.max() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_type_is_read_and_float32_returned(dtype):
    maps = random_maps(1, 4, 4, dtype=dtype)
    heat = positive_heatmap(maps, (8, 8))
    assert heat.dtype == torch.float32
    torch.testing.assert_close(heat, positive_heatmap(maps.float(), (8, 8)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("axis", [1, 2])
def test_shrinking_one_side_averages_along_it(axis):
    # Of stripes as fine as the map, every third would be seen if the others were skipped.
    stripes = torch.arange(15).remainder(2).mul(2.0).sub(1)[:, None].expand(1, 15, 4)
    maps, size = (stripes, (5, 32)) if axis == 1 else (stripes.transpose(1, 2), (32, 5))
    assert signed_heatmap(maps, size).narrow(axis, 1, 3).abs().max() < 0.5


def test_shrinking_averages_instead_of_skipping():
    lines = torch.zeros(1, 64, 64)
    lines[:, :, ::8] = 1.0
    expected = torch.full((1, 8, 8), 1 / 8)
    torch.testing.assert_close(signed_heatmap(lines, (8, 8)), expected, atol=0.05, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    exponent=st.integers(-30, 30),
    seed=st.integers(0, 1000),
)
def test_heat_has_its_size_and_range_whatever_the_map(grid, size, exponent, seed):
    maps = random_maps(2, *grid, seed=seed) * 10.0**exponent
    kept = maps.clone()
    positive, signed = positive_heatmap(maps, size), signed_heatmap(maps, size)
    assert positive.shape == signed.shape == (2, *size)
    assert ((positive >= 0) & (positive <= 1)).all()
    assert (signed.abs() <= 1).all()
    for heat in positive:
        assert not heat.any() or (heat.min() == 0 and heat.max() == 1)
    assert torch.equal(maps, kept)


@pytest.mark.parametrize("render", [positive_heatmap, signed_heatmap])
@pytest.mark.parametrize("size", [(8, 9), (2, 2)])
def test_no_map_gives_no_heat(render, size):
    heat = render(torch.zeros(0, 4, 4, dtype=torch.float64), size)
    assert heat.shape == (0, *size)
    assert heat.dtype == torch.float32


@pytest.mark.parametrize("render", [positive_heatmap, signed_heatmap])
def test_wrong_shapes_and_sizes_are_refused(render):
    with pytest.raises(ValueError, match=r"attribution must be \[B, h, w\].*\[4, 4\]"):
        render(torch.zeros(4, 4), (8, 8))
    with pytest.raises(ValueError, match="attribution"):
        render(torch.zeros(1, 0, 4), (8, 8))
    with pytest.raises(ValueError, match="size must be a positive"):
        render(torch.zeros(1, 4, 4), (0, 8))


@pytest.mark.parametrize("colormap", ["magma", "RdBu_r", "viridis"])
def test_colors_are_those_of_matplotlib(colormap):
    heat = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(1))
    heat[0, 0, :2] = torch.tensor([0.0, 1.0])
    colors = colorize(heat, colormap)
    expected = matplotlib.colormaps[colormap](heat.numpy())[..., :3].transpose(0, 3, 1, 2)
    assert colors.dtype == torch.float32
    np.testing.assert_allclose(colors, expected, atol=1e-6)


def test_heat_out_of_range_takes_the_nearer_end():
    heat = torch.tensor([[[-0.3, 0.0, 1.0, 2.0, float("nan"), float("inf")]]])
    colors = colorize(heat)[0, :, 0]
    low, high = colors[:, 1], colors[:, 2]
    torch.testing.assert_close(colors, torch.stack([low, low, high, high, low, high], dim=1))


def test_colorize_refuses_unknown_colormaps_and_shapes():
    with pytest.raises(ValueError, match="no colormap 'lava'"):
        colorize(torch.zeros(1, 2, 2), "lava")
    with pytest.raises(ValueError, match=r"heat must be \[B, H, W\]"):
        colorize(torch.zeros(2, 2))


def test_overlay_is_four_parts_image_and_six_parts_color():
    images = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(2))
    heat = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(3))
    kept = images.clone(), heat.clone()
    torch.testing.assert_close(overlay(images, heat), 0.4 * images + 0.6 * colorize(heat))
    torch.testing.assert_close(
        overlay(images, heat, "viridis", heat_weight=0.25),
        0.75 * images + 0.25 * colorize(heat, "viridis"),
    )
    assert torch.equal(images, kept[0])
    assert torch.equal(heat, kept[1])


def test_overlay_refuses_shapes_that_do_not_fit():
    images = torch.zeros(2, 3, 6, 5)
    with pytest.raises(ValueError, match=r"heat must be \[B, H, W\]"):
        overlay(images, torch.zeros(2, 5, 6))
    with pytest.raises(ValueError, match="images must be floating point"):
        overlay(images.to(torch.uint8), torch.zeros(2, 6, 5))
    with pytest.raises(ValueError, match="images must be floating point"):
        overlay(images[:, :1], torch.zeros(2, 6, 5))


def test_mask_keeps_the_inside_dims_the_outside_and_draws_the_edge():
    images = torch.full((1, 3, 20, 20), 0.8)
    mask = torch.zeros(1, 20, 20, dtype=torch.bool)
    mask[0, 5:15, 5:15] = True
    picture = mask_overlay(images, mask, dimming=0.5)[0, 0]
    expected = torch.full((20, 20), 0.4)
    expected[4:16, 4:16] = 0.0  # dark line, just outside
    expected[5:15, 5:15] = 1.0  # light line, just inside
    expected[6:14, 6:14] = 0.8
    torch.testing.assert_close(picture, expected)


def test_masks_that_fill_or_miss_the_image_have_no_edge():
    images = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(4))
    mask = torch.stack([torch.ones(9, 9), torch.zeros(9, 9)])
    pictures = mask_overlay(images, mask, dimming=0.75)
    torch.testing.assert_close(pictures, torch.stack([images[0], 0.25 * images[1]]))
    with pytest.raises(ValueError, match="mask must be"):
        mask_overlay(images, mask[:1])


def test_the_edge_is_as_wide_however_many_masks_there_are():
    images, mask = torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, 8, 8)
    mask[:, 2:6, 2:6] = 1
    alone = mask_overlay(images, mask)
    together = mask_overlay(images.expand(256, -1, -1, -1), mask.expand(256, -1, -1))
    assert torch.equal(together[-1:], alone)


def test_numbers_above_one_half_are_inside():
    images = torch.full((1, 3, 12, 12), 0.8)
    mask = torch.full((1, 12, 12), 0.4)
    mask[0, 2:10, 2:10] = 0.6
    assert torch.equal(mask_overlay(images, mask), mask_overlay(images, mask > 0.5))
    assert (mask_overlay(images, mask)[0, :, 6, 6] == 0.8).all()
