"""The panel of one sample."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import libragrad_lightning.heatmaps.explanation as explanation
from libragrad_lightning.heatmaps import explanation_panel, overlay, positive_heatmap
from libragrad_lightning.heatmaps.explanation import display_size


def sample(height=64, width=64, grid=4):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, height, width, generator=generator)
    maps = {name: torch.randn(grid, grid, generator=generator) for name in ("plain", "Libra")}
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[height // 4 : height // 2, width // 4 :] = True
    return image, maps, mask


@pytest.fixture
def columns_of(monkeypatch):
    """Compose a panel and hand back its columns, before they are set side by side."""

    def compose(*args, **kwargs):
        seen = {}

        def record(columns, footer=None, font_size=15):
            seen.update(columns=list(columns), footer=footer)
            return torch.zeros(3, 1, 1, dtype=torch.uint8)

        monkeypatch.setattr(explanation, "panel", record)
        explanation_panel(*args, **kwargs)
        return seen["columns"], seen["footer"]

    return compose


@pytest.mark.parametrize(
    ("size", "column_size", "expected"),
    [
        ((32, 32), 224, (224, 224)),
        ((28, 28), 224, (224, 224)),
        ((96, 96), 224, (192, 192)),
        ((224, 224), 224, (224, 224)),
        ((200, 150), 224, (200, 150)),
        ((512, 256), 224, (224, 112)),
        ((224, 224), 600, (672, 672)),
        ((1, 4000), 224, (1, 224)),
    ],
)
def test_display_size(size, column_size, expected):
    assert display_size(size, column_size) == expected


@given(size=st.tuples(st.integers(1, 3000), st.integers(1, 3000)), column_size=st.integers(1, 1000))
def test_display_size_is_near_its_aim_and_enlarges_by_integers(size, column_size):
    height, width = display_size(size, column_size)
    assert 2 / 3 * column_size <= max(height, width) <= 4 / 3 * column_size
    if max(size) < column_size:
        assert height % size[0] == width % size[1] == 0
        assert height // size[0] == width // size[1]


def test_columns_are_image_maps_and_mask(columns_of):
    image, maps, mask = sample()
    columns, footer = columns_of(image, maps, mask, "AP 0.62", column_size=64)
    assert [column.title for column in columns] == ["image", "plain", "Libra", "mask"]
    assert footer == "AP 0.62"
    pixels = (image * 255).round() / 255
    torch.testing.assert_close(columns[0].image, pixels)
    heat = positive_heatmap(maps["Libra"][None], (64, 64))
    torch.testing.assert_close(columns[2].image, overlay(pixels[None], heat)[0])
    inside, outside = columns[3].image[:, 20, 40], columns[3].image[:, 50, 40]
    torch.testing.assert_close(inside, pixels[:, 20, 40])
    torch.testing.assert_close(outside, 0.35 * pixels[:, 50, 40])


def test_maps_are_rendered_at_display_size_and_not_at_the_size_of_the_image(columns_of):
    _, maps, _ = sample()
    image = torch.full((3, 16, 16), 0.5)
    columns, _ = columns_of(image, maps, column_size=64, colormap="viridis")
    heat = positive_heatmap(maps["plain"][None], (64, 64))
    expected = overlay(torch.full((1, 3, 64, 64), 128 / 255), heat, "viridis")[0]
    torch.testing.assert_close(columns[1].image, expected)


def test_image_is_enlarged_with_lanczos(columns_of):
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    columns, _ = columns_of(image, {}, column_size=64)
    pixels = Image.fromarray(image.permute(1, 2, 0).numpy())
    enlarged = np.asarray(pixels.resize((64, 64), Image.Resampling.LANCZOS))
    np.testing.assert_allclose(columns[0].image.permute(1, 2, 0) * 255, enlarged, atol=1e-3)


def test_edge_of_an_enlarged_mask_is_smooth(columns_of):
    mask = torch.tensor([[0.6, 0.4], [0.4, 0.4]])
    columns, _ = columns_of(torch.full((3, 2, 2), 0.6), {}, mask, column_size=64)
    picture = columns[-1].image
    assert picture.shape == (3, 64, 64)
    # Halfway between four pixels of which one is inside lies outside: the corner is rounded.
    torch.testing.assert_close(picture[:, 29, 29], torch.full((3,), 0.35 * 0.6))
    torch.testing.assert_close(picture[:, 18, 18], torch.full((3,), 0.6))


def test_what_has_nothing_to_show_says_so(columns_of):
    image, _, mask = sample()
    zeros = torch.zeros(4, 4)
    maps = {"a": zeros, "b": zeros + 1, "c": zeros / 0, "d": zeros - 1}
    columns, _ = columns_of(image, maps, mask & False)
    assert [column.title.split("\n") for column in columns] == [
        ["image"],
        ["a", "(nothing positive)"],
        ["b", "(constant)"],
        ["c", "(not finite)"],
        ["d", "(nothing positive)"],
        ["mask", "(empty)"],
    ]


@settings(max_examples=20, deadline=None)
@given(
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    grid=st.integers(1, 9),
    column_size=st.integers(20, 120),
    with_mask=st.booleans(),
)
def test_panel_of_any_size_is_a_picture_and_leaves_its_inputs_alone(
    size, grid, column_size, with_mask
):
    image, maps, mask = sample(*size, grid)
    kept = image.clone(), {name: values.clone() for name, values in maps.items()}, mask.clone()
    result = explanation_panel(
        image, maps, mask if with_mask else None, "caption", column_size=column_size
    )
    height, width = display_size(size, column_size)
    assert result.dtype == torch.uint8
    assert result.shape[0] == 3
    assert result.shape[1] > height
    assert result.shape[2] > (4 if with_mask else 3) * width
    assert torch.equal(image, kept[0])
    assert all(torch.equal(maps[name], kept[1][name]) for name in maps)
    assert torch.equal(mask, kept[2])


def test_same_sample_gives_the_same_panel_under_grad_and_inference_mode():
    image, maps, mask = sample()
    expected = explanation_panel(image, maps, mask)
    tracked = {name: values.clone().requires_grad_() for name, values in maps.items()}
    assert torch.equal(explanation_panel(image, tracked, mask.float()), expected)
    with torch.inference_mode():
        assert torch.equal(explanation_panel(image.clone(), maps, mask), expected)


def test_wrong_arguments_are_named():
    image, maps, mask = sample()
    with pytest.raises(ValueError, match=r"image of column 'image' must be \[3, H, W\]"):
        explanation_panel(image[:1], maps)
    with pytest.raises(ValueError, match=r"map 'plain' must be \[h, w\]"):
        explanation_panel(image, {"plain": maps["plain"][None]})
    with pytest.raises(ValueError, match=r"mask must be \[H, W\]"):
        explanation_panel(image, maps, mask[None])
    with pytest.raises(ValueError, match="column_size must be positive"):
        explanation_panel(image, maps, column_size=0)
    with pytest.raises(ValueError, match="no colormap 'lava'"):
        explanation_panel(image, maps, colormap="lava")
