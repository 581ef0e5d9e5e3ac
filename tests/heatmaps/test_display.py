"""Model inputs brought back to images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libragrad_lightning.heatmaps import to_display_range


def random_images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("as_tensor", [False, True])
def test_normalisation_is_undone(as_tensor):
    images = random_images(2, 3, 4, 5)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    columns = [torch.tensor(values).view(3, 1, 1) for values in (mean, std)]
    normalized = (images - columns[0]) / columns[1]
    arguments = columns if as_tensor else [mean, std]
    torch.testing.assert_close(to_display_range(normalized, *arguments), images)


def test_mean_or_std_alone_and_one_value_for_all_channels():
    images = random_images(1, 3, 4, 4)
    torch.testing.assert_close(to_display_range(images - 0.5, mean=[0.5]), images)
    torch.testing.assert_close(to_display_range(images / 0.25, std=[0.25]), images)


def test_what_leaves_the_range_after_undoing_is_clamped():
    images = torch.tensor([-2.0, 0.0, 3.0]).view(1, 1, 1, 3)
    shown = to_display_range(images, mean=[0.5], std=[0.5])
    torch.testing.assert_close(shown[0, 0, 0], torch.tensor([0.0, 0.5, 1.0]))


def test_image_in_range_is_left_as_it_is_and_its_neighbour_stretched():
    images = random_images(2, 3, 4, 4) * 0.5 + 0.1
    images[1] = images[1] * 8 - 3
    shown = to_display_range(images)
    low, high = images[1].min(), images[1].max()
    torch.testing.assert_close(shown[0], images[0])
    torch.testing.assert_close(shown[1], (images[1] - low) / (high - low))


def test_bytes_are_divided_by_255():
    images = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2) * 20
    torch.testing.assert_close(to_display_range(images), images.float() / 255)
    normalized = to_display_range(images, mean=[0.25], std=[1.0])
    torch.testing.assert_close(normalized, (images.float() / 255 + 0.25).clamp(max=1))


def test_channels_become_rgb():
    images = random_images(1, 5, 3, 3)
    torch.testing.assert_close(to_display_range(images[:, :1]), images[:, :1].expand(1, 3, 3, 3))
    grey = images[:, :2].mean(dim=1, keepdim=True).expand(1, 3, 3, 3)
    torch.testing.assert_close(to_display_range(images[:, :2]), grey)
    torch.testing.assert_close(to_display_range(images), images[:, :3])
    mean = torch.linspace(0.1, 0.5, 5)
    shown = to_display_range(images - mean.view(5, 1, 1), mean=mean)
    torch.testing.assert_close(shown, images[:, :3])


def test_flat_and_broken_images_stay_in_range():
    images = torch.full((2, 3, 4, 4), 9.0)
    images[1, 0, 0, 0] = float("nan")
    images[1, 1, 1, 1] = float("inf")
    shown = to_display_range(images)
    assert not shown[0].any()
    assert shown[1].min() == 0
    assert shown[1].max() == 1


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, high) for high in (3, 6, 9, 9))),
    scale=st.floats(0.01, 300),
    shift=st.floats(-300, 300),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int32]),
)
def test_result_is_rgb_in_range_and_the_input_untouched(shape, scale, shift, dtype):
    images = (random_images(*shape) * scale + shift).to(dtype)
    kept = images.clone()
    shown = to_display_range(images)
    assert shown.dtype == torch.float32
    assert shown.shape == (shape[0], 3, *shape[2:])
    assert ((shown >= 0) & (shown <= 1)).all()
    shown += 1
    assert torch.equal(images, kept)


def test_wrong_shapes_and_statistics_are_refused():
    with pytest.raises(ValueError, match=r"images must be \[B, C, H, W\]"):
        to_display_range(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="mean holds 3 values for images of 1 channels"):
        to_display_range(torch.zeros(1, 1, 4, 4), mean=[0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="std holds 2 values"):
        to_display_range(torch.zeros(1, 3, 4, 4), std=[0.5, 0.5])
