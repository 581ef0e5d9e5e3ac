"""Maps on one scale: how many times as much as the average patch."""

import pytest
import torch

from libragrad_lightning.heatmaps import amount, share_heat
from libragrad_lightning.heatmaps.shares import FULL

MAP = torch.tensor([[[1.0, -2.0], [0.0, 5.0]]])


def test_a_patch_is_shown_by_its_share_of_all_that_is_attributed():
    found = share_heat(MAP, (2, 2))
    torch.testing.assert_close(found, MAP / 2 / FULL)  # the average size is 2
    assert float(amount(MAP)) == 8


@pytest.mark.parametrize("factor", [1e-30, 7.0, 1e30])
def test_the_scale_of_a_map_does_not_matter(factor):
    torch.testing.assert_close(share_heat(factor * MAP, (8, 8)), share_heat(MAP, (8, 8)))


def test_full_color_is_eight_times_the_average_for_any_number_of_patches():
    for side in (4, 9):
        others = 1.0
        # So much that it is eight times the average over all.
        much = FULL * (side**2 - 1) / (side**2 - FULL)
        maps = torch.full((1, side, side), others)
        maps[0, 1, 2] = -much
        found = share_heat(maps, (side, side))
        assert float(found[0, 1, 2]) == pytest.approx(-1.0)
        assert float(found[0, 0, 0]) == pytest.approx(1 / much)


def test_what_is_beyond_the_scale_has_full_color():
    one = torch.zeros(1, 10, 10)
    one[0, 3, 4] = -1e-4
    found = share_heat(one, (10, 10))
    assert float(found[0, 3, 4]) == -1.0
    assert float(found.abs().sum()) == 1.0


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_nothing_and_what_is_not_finite_are_blank(value):
    maps = MAP.clone()
    maps[0, 0, 0] = value
    blank = torch.zeros(1, 2, 2) if value == 0.0 else maps
    assert float(share_heat(blank, (4, 4)).abs().sum()) == 0.0
    assert float(amount(blank)) == 0.0


def test_there_may_be_no_map():
    assert share_heat(torch.zeros(0, 2, 2), (4, 4)).shape == (0, 4, 4)
    with pytest.raises(ValueError, match="attribution must be"):
        share_heat(torch.zeros(2, 2), (4, 4))
