"""Model inputs brought back to images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libragrad_lightning.heatmaps import to_display_range


def random_images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("as_tensor", [False, True])
def test_normalization_is_undone(as_tensor):
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


def test_image_in_range_is_left_as_it_is_and_its_neighbor_stretched():
    images = random_images(2, 3, 4, 4) * 0.5 + 0.1
    images[1] = images[1] * 8 - 3
    shown = to_display_range(images)
    low, high = images[1].min(), images[1].max()
    torch.testing.assert_close(shown[0], images[0])
    torch.testing.assert_close(shown[1], (images[1] - low) / (high - low))


@pytest.mark.parametrize("values", [(0.25, 1.0), (0.0, 0.5), (0.0, 1.0)])
def test_zero_and_one_are_in_range(values):
    image = torch.tensor(values).view(1, 1, 1, 2)
    assert torch.equal(to_display_range(image), image.expand(1, 3, 1, 2))


MMCV = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
CAFFE = ([123.68, 116.779, 103.939], [1.0, 1.0, 1.0])


@pytest.mark.parametrize(("mean", "std"), [MMCV, CAFFE, (MMCV[0], None), ([127.5], [127.5])])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_normalization_in_units_of_bytes_is_recognized(mean, std, as_tensor):
    images = random_images(2, 3, 4, 5)
    columns = [torch.tensor(values or [1.0]).view(-1, 1, 1) for values in (mean, std)]
    normalized = (images * 255 - columns[0]) / columns[1]
    arguments = columns if as_tensor else [mean, std]
    torch.testing.assert_close(to_display_range(normalized, *arguments), images)


def test_a_deviation_in_units_of_bytes_alone_is_recognized():
    images = random_images(1, 3, 4, 4)
    torch.testing.assert_close(to_display_range(images, std=[255.0]), images)


@pytest.mark.parametrize(("mean", "std"), [(None, None), ([0.25], [1.0]), MMCV])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.bfloat16])
def test_bytes_of_any_type_are_divided_by_255_and_were_not_normalized(mean, std, dtype):
    images = torch.arange(12).view(1, 3, 2, 2) * 20
    shown = to_display_range(images.to(dtype), mean, std)
    torch.testing.assert_close(shown, images.to(dtype).float() / 255)


def test_bytes_are_told_by_the_batch_and_not_by_a_dark_image():
    images = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(2, 1, 1, 2)
    torch.testing.assert_close(to_display_range(images)[:, 0, 0], images[:, 0, 0] / 255)
    assert to_display_range(torch.zeros(1, 3, 2, 2, dtype=torch.uint8)).max() == 0
    assert to_display_range(torch.ones(1, 3, 2, 2, dtype=torch.uint8)).max() == pytest.approx(
        1 / 255
    )


@pytest.mark.parametrize("values", [(0.0, 2.0), (0.0, 254.5), (-1.0, 255.0), (0.0, 256.0)])
def test_other_values_are_stretched(values):
    shown = to_display_range(torch.tensor(values).view(1, 1, 1, 2))
    assert shown[0, :, 0].tolist() == [[0.0, 1.0]] * 3


def test_the_largest_numbers_are_stretched_and_no_image_gives_none():
    images = torch.tensor([-3e38, 0.0, 3e38]).view(1, 1, 1, 3).expand(1, 2, 1, 3)
    torch.testing.assert_close(to_display_range(images)[0, 0, 0], torch.tensor([0.0, 0.5, 1.0]))
    for arguments in ((), ([0.5], [0.5]), MMCV):
        assert to_display_range(torch.zeros(0, 3, 4, 5), *arguments).shape == (0, 3, 4, 5)


def test_channels_become_rgb():
    images = random_images(1, 5, 3, 3)
    torch.testing.assert_close(to_display_range(images[:, :1]), images[:, :1].expand(1, 3, 3, 3))
    gray = images[:, :2].mean(dim=1, keepdim=True).expand(1, 3, 3, 3)
    torch.testing.assert_close(to_display_range(images[:, :2]), gray)
    torch.testing.assert_close(to_display_range(images), images[:, :3])
    mean = torch.linspace(0.1, 0.5, 5)
    shown = to_display_range(images - mean.view(5, 1, 1), mean=mean)
    torch.testing.assert_close(shown, images[:, :3])


def test_flat_and_broken_images_stay_in_range():
    images = torch.full((2, 3, 4, 4), 9.5)
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
