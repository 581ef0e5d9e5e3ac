"""Where tokens lie, told by numbers that say how they move."""

import pytest
import torch
from torch import nn

from libragrad_lightning.models import Axes, Level, Point
from libragrad_lightning.models.measuring import measured_levels
from libragrad_lightning.models.places import (
    Movement,
    has_aspect,
    is_in_order,
    map_places,
    moved_images,
    movement,
    other_image,
    outer_middles,
    places,
)

SIZE = (64, 96)


def lying(grid, order=None, spread=1.0, still=()):
    """Patches of a grid in an order, all nearer to the middle, and cells that do not move."""
    rows, columns = grid
    cells = torch.arange(rows * columns) if order is None else torch.tensor(order)
    down = 0.5 + spread * ((cells // columns + 0.5) / rows - 0.5)
    right = 0.5 + spread * ((cells % columns + 0.5) / columns - 0.5)
    size = torch.ones(len(cells))
    size[list(still)] = 0.0
    return Movement(size.double(), down.double(), right.double())


def test_an_image_is_moved_everywhere_and_more_the_further_down_and_to_the_right():
    image = torch.randn(1, 3, 8, 12, generator=torch.Generator().manual_seed(0)).double()
    same, noisy, down, right = moved_images(image, 3) - image
    assert not same.any()
    grow = ((torch.arange(8) + 0.5) / 8).sqrt()[:, None]
    torch.testing.assert_close(down, noisy * grow)
    torch.testing.assert_close(right, noisy * ((torch.arange(12) + 0.5) / 12).sqrt())
    assert torch.equal(moved_images(image, 3), moved_images(image, 3))
    assert not torch.equal(moved_images(image, 3), moved_images(image, 4))


def test_a_black_image_is_moved_like_one_of_deviation_one():
    image = torch.randn(1, 3, 8, 12, generator=torch.Generator().manual_seed(0)).double()
    image = image / image.std()
    noise = moved_images(image)[1] - image[0]
    torch.testing.assert_close(moved_images(torch.zeros_like(image))[1], noise)
    torch.testing.assert_close(moved_images(7 * image)[1] - 7 * image[0], 7 * noise)
    broken = image.clone()
    broken[0, 0, 0, 0] = torch.nan
    assert moved_images(broken).isfinite().all()


def test_another_image_is_as_bright_and_as_varied():
    image = 3 + 5 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    other = other_image(image)
    assert float(other.mean()) == pytest.approx(3, abs=0.5)
    assert float(other.std()) == pytest.approx(5, rel=0.1)
    assert float(other_image(torch.zeros(1, 3, 32, 32)).std()) == pytest.approx(1, rel=0.1)


def test_tokens_move_with_what_they_see():
    image = torch.zeros(1, 1, 8, 12).double()
    patches = moved_images(image).unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).flatten(2, 3)[:, 0]
    found = movement([patches])
    expected = lying((2, 3))
    torch.testing.assert_close(found.down, expected.down, atol=0.15, rtol=0)
    torch.testing.assert_close(found.right, expected.right, atol=0.15, rtol=0)
    noise = (patches[1] - patches[0]).square().sum(1)
    torch.testing.assert_close(found.size, noise.sqrt())
    twice = movement([patches, patches])
    torch.testing.assert_close(twice.size, found.size * 2**0.5)
    torch.testing.assert_close(twice.down, found.down)
    still = movement([torch.zeros(4, 2, 3)])
    assert not still.down.any()


SHUFFLED = torch.randperm(24, generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize(("spread", "is_grid"), [(1.0, True), (0.7, True), (0.6, False)])
def test_tokens_that_see_much_of_the_image_lie_near_to_its_middle(spread, is_grid):
    found = places(lying((4, 6), SHUFFLED, spread), SIZE)
    assert (found is not None) == is_grid
    if is_grid:
        assert found.order.tolist() == torch.tensor(SHUFFLED).argsort().tolist()


def test_rows_that_touch_each_other_are_no_rows():
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2)).tolist()
    apart, touching = lying((3, 3), order), lying((3, 3), order)
    rows = torch.tensor([0.16, 0.16, 0.16, 0.45, 0.5, 0.6, 0.61, 0.8, 0.9]).double()
    assert places(apart, (24, 24)).grid == (3, 3)
    assert places(Movement(touching.size, rows[order], touching.right), (24, 24)) is None
    assert places(Movement(touching.size, touching.down, rows[order]), (24, 24)) is None


@pytest.mark.parametrize("grid", [(1, 6), (6, 1), (3, 2), (2, 3), (5, 5), (4, 6), (12, 2)])
def test_every_grid_is_told_by_its_rows_and_columns(grid):
    order = torch.randperm(grid[0] * grid[1], generator=torch.Generator().manual_seed(1)).tolist()
    found = places(lying(grid, order), (grid[0] * 8, grid[1] * 8))
    assert (found.grid, found.prefix) == (grid, 0)
    assert found.order.tolist() == torch.tensor(order).argsort().tolist()


@pytest.mark.parametrize("grid", [(2, 12), (12, 2), (3, 8)])
def test_grids_of_other_cells_than_squares_are_told_too(grid):
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1)).tolist()
    assert places(lying(grid, order), (48, 48)).grid == grid


class Varying(nn.Module):
    """Makes another number of tokens each time, which all see the whole image."""

    def __init__(self):
        super().__init__()
        self.block, self.count = nn.Identity(), 5

    def forward(self, images):
        self.count += 1
        return self.block(images.mean((1, 2, 3))[:, None, None].expand(-1, self.count, 3))


def test_tokens_whose_number_changes_lie_nowhere():
    model = Varying()
    level = Level((Point(model.block),), (Axes.TOKENS,))
    assert measured_levels(model, [level], torch.randn(1, 3, 8, 8), ()) == [None]
    assert model.count > 6


def test_maps_of_another_aspect_than_the_image_lie_nowhere():
    block, axes = nn.Identity(), (Axes.CHANNELS_FIRST, Axes.CHANNELS_LAST)

    def forward(images):
        return block(images.mean((1, 2, 3))[:, None, None, None].expand(-1, 20, 2, 9))

    level = Level((Point(block),), axes)
    assert measured_levels(forward, [level], torch.randn(1, 3, 8, 8), ()) == [None]


def test_cells_of_a_padded_border_lie_nowhere():
    border = [n for n in range(30) if n // 6 in (0, 4) or n % 6 in (0, 1)]
    how_well, found = map_places(lying((5, 6), still=border), (5, 6))
    assert how_well == pytest.approx(1.0)
    assert (found.grid, found.prefix) == ((3, 4), 18)
    assert found.order[18:].tolist() == [n for n in range(30) if n not in border]
    assert sorted(found.order[:18].tolist()) == border
    assert not found.is_usual


def test_maps_without_a_border_and_maps_that_stand_still():
    how_well, found = map_places(lying((5, 6)), (5, 6))
    assert (how_well, found.grid, found.prefix) == (pytest.approx(1.0), (5, 6), 0)
    assert found.is_usual
    turned = map_places(lying((6, 5)), (5, 6))[0]
    assert turned < how_well
    _, still = map_places(lying((2, 3), still=range(6)), (2, 3))
    assert (still.grid, still.prefix) == ((2, 3), 0)


def test_outer_middles_are_those_of_the_outer_rows_and_columns():
    found = lying((4, 5), spread=0.5)
    at = places(lying((4, 5)), (32, 40))
    expected = (0.3125, 0.6875, 0.3, 0.7)
    assert outer_middles(found, at) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("grid", "size", "fits"),
    [
        ((4, 6), (64, 96), True),
        ((6, 4), (64, 96), False),
        ((4, 7), (64, 96), True),
        ((4, 8), (64, 96), False),
        ((5, 6), (64, 96), True),
        ((6, 6), (64, 96), False),
    ],
)
def test_a_grid_has_the_aspect_of_the_image_up_to_a_row_or_column(grid, size, fits):
    assert has_aspect(grid, size) == fits


def test_numbers_in_order():
    assert is_in_order(torch.arange(3))
    assert not is_in_order(torch.tensor([0, 2, 1]))
