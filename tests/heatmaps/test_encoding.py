"""Photographs become JPEG, charts PNG, and both look like the pictures."""

import io

import numpy as np
import torch
from PIL import Image

from libragrad_lightning.heatmaps import PlotLine, encoded, line_plot

PHOTO = torch.nn.functional.interpolate(
    torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)), (96, 96), mode="bicubic"
)[0].clamp(0, 1)


def read(content):
    picture = Image.open(io.BytesIO(content))
    return picture.format, np.asarray(picture).astype(int)


def test_a_photograph_is_a_jpeg_that_looks_the_same():
    content, kind = encoded(PHOTO)
    form, pixels = read(content)
    assert (kind, form) == ("jpeg", "JPEG")
    exact = (PHOTO * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(pixels - exact).mean() < 3
    assert len(content) < 96 * 96


def test_a_chart_is_a_png_without_a_difference():
    chart = line_plot([PlotLine((0.0, 1.0), (0.0, 1.0), (200, 0, 0))], "x", (120, 160))
    content, kind = encoded(chart)
    form, pixels = read(content)
    assert (kind, form) == ("png", "PNG")
    assert np.array_equal(pixels, chart.permute(1, 2, 0).numpy())


def test_a_picture_is_encoded_once_until_it_is_overwritten():
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    first = encoded(image)
    assert encoded(image) is first
    assert encoded(image.clone()) == first
    image[0, 0, 0] += 1
    assert encoded(image) == encoded(image.clone()) != first


def test_pictures_of_inference_mode_are_never_taken_for_others():
    with torch.inference_mode():
        image = torch.zeros(3, 20, 30, dtype=torch.uint8)
        first = encoded(image)
        image[0, 0, 0] += 1
        assert encoded(image) != first
