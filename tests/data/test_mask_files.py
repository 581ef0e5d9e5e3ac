"""Mask files as annotation tools write them: what is object, what is void."""

import numpy as np
import pytest
from PIL import Image

from libragrad_lightning.data import ImageFolderDataModule
from libragrad_lightning.data.mask_files import object_and_void, read_mask

BACKGROUND, OBJECT, VOID = 0, 1, 2
REGIONS = np.zeros((20, 30), np.uint8)
REGIONS[4:14, 5:25] = OBJECT
REGIONS[4:6, 5:25] = VOID
WITHOUT_VOID = np.minimum(REGIONS, OBJECT)


def indexed(values, palette):
    image = Image.fromarray(values.astype(np.uint8), "P")
    image.putpalette([channel for color in palette for channel in color])
    return image


def levels(regions, *values, dtype=np.uint8):
    """Give background, object and void (in this order) a value."""
    return np.array(values, dtype)[regions]


def read(tmp_path, image, **options):
    image.save(tmp_path / "mask.png", **options)
    return read_mask(tmp_path / "mask.png")


def check(found, regions):
    inside, void = found
    assert inside.dtype == void.dtype == bool
    np.testing.assert_array_equal(inside, regions == OBJECT)
    np.testing.assert_array_equal(void, regions == VOID)


@pytest.mark.parametrize(
    "palette",
    [
        [(255, 255, 255), (0, 0, 0)],
        [(0, 0, 0), (0, 0, 0)],
        [(0, 0, 0), (128, 0, 0)],
        [(255, 255, 255), (255, 255, 255)],
    ],
)
@pytest.mark.parametrize("bits", [1, 8])
def test_indexed_files_are_read_as_indices_whatever_the_colors(tmp_path, palette, bits):
    image = indexed(WITHOUT_VOID, palette)
    check(read(tmp_path, image, bits=bits), WITHOUT_VOID)
    with Image.open(tmp_path / "mask.png") as stored:
        assert stored.mode == "P"


@pytest.mark.parametrize("number", [1, 15, 200])
def test_255_beside_other_indices_is_void(tmp_path, number):
    palette = [(index, 0, 0) for index in range(256)]
    check(read(tmp_path, indexed(levels(REGIONS, 0, number, 255), palette)), REGIONS)
    check(
        read(tmp_path, indexed(levels(WITHOUT_VOID, 0, 255), palette), transparency=0), WITHOUT_VOID
    )


def test_several_classes_are_one_object(tmp_path):
    values = levels(REGIONS, 0, 3, 255)
    values[10:14, 5:25] = 7
    check(read(tmp_path, Image.fromarray(values)), REGIONS)


@pytest.mark.parametrize("value", [1, 15, 254, 255])
def test_gray_files_mark_the_object_with_any_value(tmp_path, value):
    check(read(tmp_path, Image.fromarray(levels(WITHOUT_VOID, 0, value))), WITHOUT_VOID)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_255_beside_class_numbers_is_void_in_every_gray_mode(tmp_path, mode):
    image = Image.fromarray(levels(REGIONS, 0, 15, 255)).convert(mode)
    check(read(tmp_path, image), REGIONS)


def test_soft_edges_of_gray_files_are_cut_at_half(tmp_path):
    edges = levels(WITHOUT_VOID, 0, 255)
    edges[3, 5:25], edges[4, 5:25] = 127, 128
    check(read(tmp_path, Image.fromarray(edges)), WITHOUT_VOID)


def test_black_and_white_files(tmp_path):
    check(read(tmp_path, Image.fromarray(WITHOUT_VOID == OBJECT)), WITHOUT_VOID)
    with Image.open(tmp_path / "mask.png") as stored:
        assert stored.mode == "1"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("opacity", [255, 100])
def test_the_object_may_be_in_the_alpha_channel(tmp_path, mode, opacity):
    image = Image.new(mode, (30, 20), "white")
    alpha = levels(WITHOUT_VOID, 0, opacity)
    alpha[0, 0] = opacity // 2
    image.putalpha(Image.fromarray(alpha))
    check(read(tmp_path, image), WITHOUT_VOID)


def test_nothing_is_object_where_all_is_transparent(tmp_path):
    check(read(tmp_path, Image.new("RGBA", (30, 20), (255, 255, 255, 0))), 0 * REGIONS)


def test_colored_files_mark_what_is_not_black(tmp_path):
    colors = np.zeros((20, 30, 3), np.uint8)
    colors[REGIONS == OBJECT] = (0, 0, 128)
    check(read(tmp_path, Image.fromarray(colors)), np.where(REGIONS == OBJECT, OBJECT, 0))


def test_16_bit_files_have_their_own_void(tmp_path):
    def deep(regions, *values):
        return Image.fromarray(levels(regions, *values, dtype=np.uint16))

    check(read(tmp_path, deep(WITHOUT_VOID, 0, 65535)), WITHOUT_VOID)
    check(read(tmp_path, deep(WITHOUT_VOID, 0, 300)), WITHOUT_VOID)
    check(read(tmp_path, deep(REGIONS, 0, 300, 65535)), REGIONS)


def test_negative_values_are_void():
    check(object_and_void(levels(REGIONS, 0, 3, -1, dtype=np.int64), 65535), REGIONS)


def test_a_mask_is_turned_by_its_own_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.rot90(WITHOUT_VOID) * 255)
    check(read(tmp_path, stored, exif=exif), WITHOUT_VOID)


def test_void_pixels_become_ignore_and_batches_are_alike_with_and_without(tmp_path):
    for part in ("val", "val_masks"):
        (tmp_path / part / "a").mkdir(parents=True)
    for name, regions in (("x", REGIONS), ("y", WITHOUT_VOID)):
        Image.fromarray(regions * 80).save(tmp_path / "val" / "a" / f"{name}.png")
        image = Image.fromarray(levels(regions, 0, 15, 255))
        image.save(tmp_path / "val_masks" / "a" / f"{name}.png")
    data = ImageFolderDataModule(str(tmp_path), "test_vit", image_size=64, masks="_masks")
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    shown = (batch["image"][:, 0] * data.image_std[0] + data.image_mean[0]) * 255
    for value, key in ((80, "mask"), (160, "ignore")):
        inside = (shown - value).abs() < 0.5
        assert inside.any() == (inside & batch[key]).any()
        assert (batch[key] | ~inside).all()
    assert batch["ignore"][0].any()
    assert not batch["ignore"][1].any()
    assert not (batch["mask"] & batch["ignore"]).any()
