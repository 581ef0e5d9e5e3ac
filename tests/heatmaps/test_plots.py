"""Charts in pixels: lines are where their values are, and in their colors."""

import math

import torch

from libragrad_lightning.heatmaps import (
    IntervalRow,
    PlotLine,
    interval_plot,
    legend,
    line_plot,
)

RED, BLUE = (200, 0, 0), (0, 0, 200)


def where(picture, color):
    """Rows and columns of the pixels that have exactly this color."""
    found = (picture == torch.tensor(color, dtype=torch.uint8)[:, None, None]).all(0)
    return found.nonzero().float()


def test_lines_are_where_their_values_are():
    lines = [
        PlotLine((0.1, 0.9), (1.0, 1.0), RED),
        PlotLine((0.1, 0.9), (0.0, 0.5), BLUE),
    ]
    picture = line_plot(lines, "share", (160, 200))
    assert (picture.dtype, picture.shape) == (torch.uint8, (3, 160, 200))
    red, blue = where(picture, RED), where(picture, BLUE)
    assert red[:, 0].max() - red[:, 0].min() <= 2  # level
    width = red[:, 1].max() - red[:, 1].min()
    assert 0.7 * 150 < width < 200  # eight tenths of the axis
    left, right = blue[blue[:, 1] < 80], blue[blue[:, 1] > 160]
    assert left[:, 0].mean() > right[:, 0].mean() > red[:, 0].mean()  # it rises, and stays below


def test_dashes_have_gaps_and_bands_are_paler():
    places = [i / 10 for i in range(11)]
    whole = PlotLine(places, [0.5] * 11, RED)
    dashed = PlotLine(places, [0.5] * 11, RED, dashed=True)
    counts = [len(where(line_plot([line], "", (160, 200)), RED)) for line in (whole, dashed)]
    assert 0.3 < counts[1] / counts[0] < 0.7
    band = PlotLine(places, [0.5] * 11, RED, band=([0.2] * 11, [0.8] * 11))
    picture = line_plot([band], "", (160, 200))
    paler = [round(255 + (c - 255) * round(255 * 0.22) / 255) for c in RED]
    shown = (picture.int() - torch.tensor(paler)[:, None, None]).abs().amax(0) <= 2
    assert shown.sum() > 0.4 * 100 * 160


def test_points_that_are_not_finite_are_left_out():
    holes = PlotLine((0.1, 0.5, 0.9), (math.nan, 0.5, 0.5), RED, band=((math.nan,) * 3,) * 2)
    columns = where(line_plot([holes], "", (160, 200)), RED)[:, 1]
    assert columns.min() > 90
    assert line_plot([], "", (160, 200)).shape == (3, 160, 200)


def test_intervals_stand_on_their_side_of_zero():
    rows = [
        IntervalRow("better", 0.5, 0.4, 0.6, RED),
        IntervalRow("worse", -0.5, -0.6, -0.4, BLUE),
    ]
    picture = interval_plot(rows, 300)
    assert picture.shape[2] == 300
    red, blue = where(picture, RED), where(picture, BLUE)
    assert red[:, 1].min() > blue[:, 1].max()
    assert red[:, 0].max() < blue[:, 0].min()


def test_a_legend_has_room_for_all_its_names():
    entries = [("plain", RED, False), ("libra", BLUE, True)]
    wide, narrow = legend(entries, 400), legend(entries, 90)
    assert narrow.shape[1] == 2 * wide.shape[1]
    for picture in (wide, narrow):
        assert len(where(picture, RED)) > 1.5 * len(where(picture, BLUE)) > 0
