"""Image files of every kind come out upright and in the right RGB values."""

import struct

import numpy as np
import pytest
from PIL import Image

from libragrad_lightning.data import ImageFolderDataModule
from libragrad_lightning.image_files import measure_gray_bits, read_rgb, spread

ORIENTATION = 0x0112
UPRIGHT = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.swapaxes(0, 1),
    6: np.rot90(UPRIGHT),
    7: UPRIGHT[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(UPRIGHT, -1),
}


def oriented(number):
    exif = Image.Exif()
    exif[ORIENTATION] = number
    return exif


def saved(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def deep(path, *values, dtype=np.uint16):
    return saved(path, Image.fromarray(np.array([values], dtype)))


def first_row(path, **kwargs):
    """The gray values of the first row of an image."""
    pixels = np.asarray(read_rgb(path, **kwargs))
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_photographs_come_out_upright(tmp_path, number, suffix):
    image = Image.fromarray(np.ascontiguousarray(STORED[number]))
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", image, exif=oriented(number), **options)
    np.testing.assert_array_equal(read_rgb(path), UPRIGHT)


@pytest.mark.parametrize(
    "block",
    [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_unreadable_exif_block_turns_nothing(tmp_path, block):
    path = saved(tmp_path / "a.png", Image.fromarray(UPRIGHT), exif=block)
    np.testing.assert_array_equal(read_rgb(path), UPRIGHT)


def test_an_exif_block_that_cannot_be_written_anew_turns_all_the_same(tmp_path):
    # One entry for the orientation, one whose type is at odds with its tag (XResolution as text).
    entries = struct.pack("<HHIHH", ORIENTATION, 3, 1, 6, 0) + struct.pack(
        "<HHI4s", 282, 2, 2, b"a"
    )
    block = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + b"\0\0\0\0"
    stored = Image.fromarray(np.ascontiguousarray(STORED[6]))
    path = saved(tmp_path / "a.png", stored, exif=block)
    np.testing.assert_array_equal(read_rgb(path), UPRIGHT)


@pytest.mark.parametrize(
    ("image", "suffix", "color"),
    [
        (Image.new("L", (3, 2), 7), "png", (7, 7, 7)),
        (Image.new("LA", (3, 2), (7, 90)), "png", (7, 7, 7)),
        (Image.new("RGBA", (3, 2), (1, 2, 3, 4)), "png", (1, 2, 3)),
        (Image.new("1", (3, 2), 1), "png", (255, 255, 255)),
        (Image.new("CMYK", (3, 2), (255, 0, 0, 0)), "tif", (0, 255, 255)),
        (Image.new("CMYK", (3, 2), (0, 255, 255, 0)), "jpg", (255, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, image, suffix, color):
    options = {"quality": 100} if suffix == "jpg" else {}
    pixels = np.asarray(read_rgb(saved(tmp_path / f"a.{suffix}", image, **options)))
    np.testing.assert_allclose(pixels, np.broadcast_to(color, (2, 3, 3)), atol=2 if options else 0)


@pytest.mark.parametrize("transparency", [None, 0, b"\x00\x80"])
@pytest.mark.filterwarnings("error")
def test_palettes_become_rgb_with_any_transparency_and_without_a_warning(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    options = {} if transparency is None else {"transparency": transparency}
    pixels = np.asarray(read_rgb(saved(tmp_path / "a.png", image, **options)))
    assert pixels.tolist() == [[[10, 20, 30], [40, 50, 60]]]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_deep_gray_keeps_its_range(tmp_path, bits, suffix):
    largest = 2**bits - 1
    path = deep(tmp_path / f"a.{suffix}", 0, largest // 3, largest)
    assert measure_gray_bits([path]) == bits
    expected = [0, round(largest // 3 * 255 / largest), 255]
    assert first_row(path, gray_bits=bits) == expected


def test_deep_gray_is_read_with_all_its_bits_unless_told(tmp_path):
    assert first_row(deep(tmp_path / "a.png", 0, 4095, 65535)) == [0, 16, 255]
    big_endian = saved(tmp_path / "a.tif", Image.fromarray(np.array([[0, 65535]], ">u2")))
    assert first_row(big_endian) == [0, 255]
    portable = tmp_path / "a.pgm"
    portable.write_bytes(b"P5 2 1 4095\n" + np.array([0, 4095], ">u2").tobytes())
    assert first_row(portable) == [0, 255]


def test_values_beyond_the_range_are_named(tmp_path):
    path = deep(tmp_path / "a.png", 0, 5000)
    with pytest.raises(
        ValueError,
        match=r"a.png holds the value 5000, .* with 12 bits, up to 4095; set gray_bits to 13",
    ):
        read_rgb(path, gray_bits=12)
    path = deep(tmp_path / "a.tif", -1000, 3000, dtype=np.int32)
    with pytest.raises(
        ValueError, match=r"a.tif holds values from -1000 to 3000, .* save it as 16"
    ):
        read_rgb(path)


def test_the_range_is_measured_over_many_files(tmp_path):
    files = [deep(tmp_path / f"{number:03}.png", 0, 700 + number) for number in range(200)]
    assert measure_gray_bits(files) == 10
    deep(files[-1], 0, 3000)
    assert measure_gray_bits(files) == 12
    others = [saved(tmp_path / "a.jpg", Image.fromarray(UPRIGHT)), tmp_path / "missing.png"]
    (tmp_path / "text.png").write_text("no image")
    assert measure_gray_bits([*others, tmp_path / "text.png"]) == 16
    assert measure_gray_bits([*others, files[0]]) == 10
    assert measure_gray_bits([]) == 16


def test_chosen_items_are_evenly_spaced():
    assert spread(range(100), 4) == [0, 33, 66, 99]
    assert spread("abc", 8) == ["a", "b", "c"]
    assert spread([], 8) == []


def shares(dataset, data):
    """The brightest pixel of each image, as a share of the range."""
    means, stds = data.image_mean, data.image_std
    return [float(sample["image"][0].max()) * stds[0] + means[0] for sample in dataset]


def test_both_splits_and_all_classes_of_a_folder_are_read_alike(tmp_path):
    for name, split, value in (("a", "train", 4095), ("b", "train", 300), ("b", "val", 600)):
        deep(tmp_path / split / name / "x.png", *[value] * 32)
    data = ImageFolderDataModule(str(tmp_path), "test_vit", image_size=32)
    expected = [round(value / 4095 * 255) / 255 for value in (4095, 300)]
    assert shares(data.build("train"), data) == pytest.approx(expected, abs=1e-6)
    assert shares(data.build("val"), data) == pytest.approx([round(600 / 4095 * 255) / 255])
    own = ImageFolderDataModule(str(tmp_path), "test_vit", image_size=32, gray_bits=10)
    assert shares(own.build("val"), own) == pytest.approx([round(600 / 1023 * 255) / 255])
    with pytest.raises(ValueError, match="gray_bits must be None or 1 to 16, but is 0; change it"):
        ImageFolderDataModule(str(tmp_path), "test_vit", gray_bits=0)


def test_floating_point_images_keep_their_range(tmp_path):
    def floats(*values):
        return deep(tmp_path / "a.tif", *values, dtype=np.float32)

    assert first_row(floats(0, 0.25, 0.5, 1)) == [0, 64, 128, 255]
    assert first_row(floats(0, 0.25)) == [0, 64]
    assert first_row(floats(0, 128, 255)) == [0, 128, 255]
    for values, seen in (
        ((-1, 1), "-1 to 1"),
        ((0, 4095), "0 to 4095"),
        ((0, np.nan), "nan to nan"),
    ):
        path = floats(*values)
        with pytest.raises(
            ValueError, match=rf"image .*a.tif holds values from {seen}; scale it to"
        ):
            read_rgb(path)


def test_damaged_files_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(
        ValueError, match=r"The image .*a.png cannot be read \(.*truncated.*\); repl"
    ):
        read_rgb(path)
    path.write_text("no image")
    with pytest.raises(ValueError, match=r"a.png is not an image; replace or remove it"):
        read_rgb(path)
    path.unlink()
    with pytest.raises(ValueError, match=r"a.png is missing; put it back, or change its path"):
        read_rgb(path)


def test_a_mask_of_the_stored_pixels_of_a_turned_photograph_is_named(tmp_path):
    photograph = Image.new("RGB", (60, 40))
    saved(tmp_path / "val" / "a" / "x.jpg", photograph, exif=oriented(6))
    saved(tmp_path / "val_masks" / "a" / "x.png", Image.new("L", (60, 40)))
    data = ImageFolderDataModule(str(tmp_path), "test_vit", image_size=32, masks="_masks")
    message = (
        r"x.png has 60 x 40 pixels, but its image has 40 x 60, .* EXIF orientation .* turn the"
    )
    with pytest.raises(ValueError, match=message):
        list(data.build("val"))
    saved(tmp_path / "val_masks" / "a" / "x.png", Image.new("L", (40, 60), 1))
    (sample,) = list(data.build("val"))
    assert sample["mask"].all()
