"""Pictures side by side."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libragrad_lightning.heatmaps import PanelColumn, grid, panel, stacked
from libragrad_lightning.heatmaps.panel import from_pil, to_pil


def flat(color, height, width):
    return torch.tensor(color, dtype=torch.uint8).view(3, 1, 1).expand(3, height, width)


def box_of(image, color):
    """First row, end row, first column, end column of the pixels of one color."""
    hits = (image == torch.tensor(color, dtype=torch.uint8).view(3, 1, 1)).all(dim=0)
    rows, columns = hits.any(dim=1).nonzero().flatten(), hits.any(dim=0).nonzero().flatten()
    box = rows[0].item(), rows[-1].item() + 1, columns[0].item(), columns[-1].item() + 1
    assert hits[box[0] : box[1], box[2] : box[3]].all()
    return box


def dark_rows(image):
    return (image.amax(dim=0) < 128).any(dim=1).nonzero().flatten()


def test_pictures_stand_in_order_on_white_and_keep_their_size():
    red, green = (250, 0, 0), (0, 250, 0)
    image = panel([PanelColumn("", flat(red, 120, 150)), PanelColumn("", flat(green, 120, 180))])
    assert image.dtype == torch.uint8
    assert image.shape == (3, 120 + 2 * 15, 150 + 180 + 10 + 2 * 15)
    assert box_of(image, red) == (15, 135, 15, 165)
    assert box_of(image, green) == (15, 135, 175, 355)
    white = (image == 255).all(dim=0)
    assert white.sum() == white.numel() - 120 * (150 + 180)


def test_title_stands_above_its_picture_and_footer_below():
    red = (250, 0, 0)
    column = PanelColumn("image", flat(red, 150, 150))
    bare = panel([PanelColumn("", column.image)])
    image = panel([column], footer="label: cat | AP 0.62")
    assert image.shape[2] == bare.shape[2]
    top, bottom, *_ = box_of(image, red)
    rows = dark_rows(image)
    assert (rows < top).any()
    assert (rows >= bottom).any()
    assert not ((rows >= top) & (rows < bottom)).any()
    assert not (dark_rows(panel([column])) >= bottom).any()


def test_long_footer_grows_downwards_only():
    column = PanelColumn("a", flat((0, 250, 0), 150, 150))
    short, long = panel([column], "word"), panel([column], "word " * 40)
    assert long.shape[2] == short.shape[2]
    assert long.shape[1] > short.shape[1]


def test_short_title_stands_next_to_its_picture_beside_a_long_one():
    red, green = (250, 0, 0), (0, 250, 0)
    columns = [
        PanelColumn("image", flat(red, 150, 150)),
        PanelColumn("a title of very many words which needs more lines", flat(green, 150, 150)),
    ]
    image = panel(columns)
    top = box_of(image, red)[0]
    assert box_of(image, green)[0] == top
    left_half, right_half = image[:, :top, : 15 + 150], image[:, :top, 15 + 160 :]
    assert dark_rows(left_half).min() > dark_rows(right_half).min() + 15
    assert top - dark_rows(left_half).max() < 15


def test_smaller_pictures_are_centred():
    red, green = (250, 0, 0), (0, 250, 0)
    image = panel([PanelColumn("", flat(red, 200, 150)), PanelColumn("", flat(green, 100, 20))])
    assert box_of(image, green)[:2] == (65, 165)
    left, right = box_of(image, green)[2:]
    assert (left + right) / 2 == (15 + 150 + 10 + image.shape[2] - 15) / 2


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=4),
    title=st.text(max_size=30),
    footer=st.none() | st.text(max_size=80),
    font_size=st.integers(8, 30),
)
def test_any_text_and_size_gives_a_panel_that_holds_the_pictures(sizes, title, footer, font_size):
    images = [torch.rand(3, *size) for size in sizes]
    kept = [image.clone() for image in images]
    result = panel([PanelColumn(title, image) for image in images], footer, font_size)
    assert result.dtype == torch.uint8
    assert result.shape[1] >= max(height for height, _ in sizes) + 2 * font_size
    assert result.shape[2] >= sum(width for _, width in sizes) + 2 * font_size
    assert all(torch.equal(image, copy) for image, copy in zip(images, kept, strict=True))


def test_conversion_rounds_clamps_and_comes_back():
    values = torch.tensor([-1.0, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 2.0, float("nan")])
    picture = from_pil(to_pil(values.expand(3, 1, 7)))
    assert picture[0, 0].tolist() == [0, 0, 0, 1, 255, 255, 0]
    pixels = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    assert torch.equal(from_pil(to_pil(pixels)), pixels)


@pytest.mark.parametrize(
    "image",
    [torch.zeros(4, 4), torch.zeros(1, 4, 4), torch.zeros(3, 0, 4), torch.zeros(3, 2, 2).long()],
)
def test_column_refuses_what_is_no_picture(image):
    with pytest.raises(ValueError, match=r"image of column 'cat' must be \[3, H, W\]"):
        PanelColumn("cat", image)


def test_panel_needs_a_column():
    with pytest.raises(ValueError, match="columns is empty"):
        panel([])


def test_panels_are_stacked_on_white_from_top_to_bottom():
    panels = [torch.full((3, 4, 6), 1, dtype=torch.uint8), torch.zeros(3, 2, 9, dtype=torch.uint8)]
    figure = stacked(panels)
    assert figure.shape == (3, 6, 9)
    assert torch.equal(figure[:, :4, :6], panels[0])
    assert torch.equal(figure[:, 4:], panels[1])
    assert (figure[:, :4, 6:] == 255).all()
    with pytest.raises(ValueError, match="panels is empty; a figure needs at least one"):
        stacked([])


def test_rows_of_a_grid_stand_below_each_other_in_columns():
    red, green, blue = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    rows = [[flat(red, 120, 150), flat(green, 120, 150)], [flat(blue, 120, 150)] * 2]
    image = grid([[PanelColumn("", picture) for picture in row] for row in rows], "word")
    top, bottom, left, right = box_of(image, red)
    assert box_of(image, green) == (top, bottom, right + 10, right + 160)
    hits = (image == torch.tensor(blue, dtype=torch.uint8).view(3, 1, 1)).all(0).nonzero()
    assert hits.amin(0).tolist() == [bottom + 10, left]
    assert hits.amax(0).tolist() == [bottom + 129, right + 159]
    assert (dark_rows(image) > bottom + 130).any()
    for empty in ([], [[]]):
        with pytest.raises(ValueError, match="columns is empty"):
            grid(empty)
