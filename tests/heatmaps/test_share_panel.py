"""Panels of an audit: image and mask, and below them maps that share a scale."""

import sys

import pytest
import torch

from libragrad_lightning.heatmaps import (
    PanelTarget,
    StripMoment,
    color_bar,
    colorize,
    share_heat,
    share_overlay,
    share_panel,
    strip,
)

GENERATOR = torch.Generator().manual_seed(0)
IMAGE = torch.rand(3, 32, 32, generator=GENERATOR)
MAPS = {name: torch.randn(4, 4, generator=GENERATOR) for name in ("plain", "libra")}
MASK = torch.zeros(32, 32, dtype=torch.bool)
MASK[8:20, 4:30] = True


@pytest.fixture
def rows(monkeypatch):
    """Composes something, and returns its rows of columns and its caption."""

    def compose(module, call):
        seen = {}

        def record(rows, footer=None, font_size=15):
            seen.update(rows=[list(row) for row in rows], footer=footer)
            return torch.zeros(3, 1, 1, dtype=torch.uint8)

        # The package has functions of the same names.
        monkeypatch.setattr(sys.modules[f"libragrad_lightning.heatmaps.{module}"], "grid", record)
        call()
        return seen["rows"], seen["footer"]

    return compose


def titles(found):
    return [[column.title.split("\n") for column in row] for row in found]


def test_image_and_mask_stand_above_the_maps_and_the_color_bar_below(rows):
    target = PanelTarget("", MAPS, {"libra": "AP 0.50"})
    found, footer = rows("share_panel", lambda: share_panel(IMAGE, [target], MASK, "label x"))
    assert footer == "label x"
    assert titles(found) == [[["image"], ["mask"]], [["plain"], ["libra", "AP 0.50"]], [[""]]]
    big = IMAGE.mul(255).round().div(255).repeat_interleave(6, 1).repeat_interleave(6, 2)
    torch.testing.assert_close(found[0][0].image, big)  # pixels of small images are squares
    for column, attribution in zip(found[1], MAPS.values(), strict=True):
        heat = share_heat(attribution[None], (192, 192))
        colors = colorize((heat + 1) / 2, "RdBu_r")[0]
        torch.testing.assert_close(column.image, 0.4 * big.mean(0, keepdim=True) + 0.6 * colors)


def test_every_target_has_rows_of_two(rows):
    three = {**MAPS, "own": MAPS["plain"]}
    targets = [PanelTarget("cat 0.9", three, mask=MASK), PanelTarget("dog 0.1", MAPS)]
    found, _ = rows("share_panel", lambda: share_panel(IMAGE, targets))
    assert titles(found) == [
        [["image"]],
        [["cat 0.9", "plain"], ["cat 0.9", "libra"]],
        [["cat 0.9", "own"], ["mask"]],
        [["dog 0.1", "plain"], ["dog 0.1", "libra"]],
        [[""]],
    ]


def test_maps_with_nothing_in_them_say_so(rows):
    maps = {"zero": torch.zeros(2, 2), "one": torch.ones(2, 2), "nan": torch.zeros(2, 2) / 0}
    found, _ = rows("share_panel", lambda: share_panel(IMAGE, [PanelTarget("", maps)]))
    assert titles(found)[1] == [["zero", "(zero everywhere)"], ["one", "(constant)"]]
    assert titles(found)[2] == [["nan", "(not finite)"]]


def test_red_is_for_and_blue_is_against():
    attribution = torch.tensor([[5.0, 0.0], [0.0, -5.0]]).repeat_interleave(4, 0)
    picture = share_overlay(torch.full((3, 8, 8), 0.5), attribution.repeat_interleave(4, 1))
    red, _, blue = picture[:, 0, 0]
    assert red > blue
    red, _, blue = picture[:, 7, 7]
    assert red < blue
    torch.testing.assert_close(picture[0, 0, 7], picture[2, 0, 7], atol=0.01, rtol=0)


def test_the_color_bar_has_the_colors_of_the_overlay():
    bar = color_bar(200, 14).float() / 255
    ends = torch.linspace(-1, 1, 200)
    expected = 0.4 * 0.5 + 0.6 * colorize(((ends + 1) / 2)[None, None], "RdBu_r")[0, :, 0]
    torch.testing.assert_close(bar[:, 5], expected, atol=1 / 255, rtol=0)


def test_a_panel_is_as_wide_as_two_pictures_whatever_there_is_to_show():
    for count in (1, 3):
        panel = share_panel(IMAGE, [PanelTarget(f"class {i}", MAPS) for i in range(count)], MASK)
        assert panel.dtype == torch.uint8
        assert 2 * 192 < panel.shape[2] < 2 * 192 + 60


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"map 'plain' must be \[h, w\]"):
        share_panel(IMAGE, [PanelTarget("", {"plain": MAPS["plain"][None]})])
    with pytest.raises(ValueError, match="column_size must be positive"):
        share_panel(IMAGE, [], column_size=0)


def test_a_strip_has_four_moments_beside_each_other(rows):
    moments = [StripMoment(f"epoch {i}", MAPS) for i in range(6)]
    found, footer = rows("strip", lambda: strip(IMAGE, moments, "label x"))
    assert footer == "label x"
    assert titles(found) == [
        [[f"epoch {i}", "plain"] for i in range(4)],
        [["libra"]] * 4,
        [[f"epoch {i}", "plain"] for i in (4, 5)],
        [["libra"]] * 2,
        [[""]],
    ]
    big = IMAGE.mul(255).round().div(255).repeat_interleave(3, 1).repeat_interleave(3, 2)
    torch.testing.assert_close(found[3][1].image, share_overlay(big, MAPS["libra"]))


def test_a_strip_is_a_picture_and_needs_a_moment():
    picture = strip(IMAGE, [StripMoment("epoch 0", MAPS)])
    assert picture.dtype == torch.uint8
    with pytest.raises(ValueError, match="at least one"):
        strip(IMAGE, [])
