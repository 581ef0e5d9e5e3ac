import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score

from libragrad_lightning.metrics import SegmentationAP
from libragrad_lightning.metrics.functional import (
    segmentation_average_precision,
)

torch.set_num_threads(1)
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7))
TIED = st.sampled_from([-1.0, -1e-300, -0.0, 0.0, 0.5, 0.5 + 2**-52])
DISTINCT = st.floats(-1e6, 1e6, allow_nan=False)


def sklearn_average_precision(attribution, mask, ignore):
    """Return one value per image, from the pixels that count; NaN without a positive one."""
    values = []
    for scores, positive, left_out in zip(attribution, mask, ignore, strict=True):
        scores, positive = scores[~left_out], positive[~left_out]
        value = average_precision_score(positive, scores) if positive.any() else math.nan
        values.append(value)
    return np.array(values)


@st.composite
def images(draw, values):
    shape = draw(SHAPES)
    return (
        draw(hnp.arrays(np.float64, shape, elements=values)),
        draw(hnp.arrays(np.bool_, shape)),
        draw(hnp.arrays(np.bool_, shape)),
    )


@settings(deadline=None, max_examples=150)
@given(images(TIED) | images(DISTINCT))
def test_equals_scikit_learn(example):
    attribution, mask, ignore = example
    tensors = [torch.from_numpy(array) for array in example]
    nothing = np.zeros_like(ignore)
    np.testing.assert_allclose(
        segmentation_average_precision(*tensors[:2]),
        sklearn_average_precision(attribution, mask, nothing),
        rtol=0,
        atol=1e-12,
    )
    np.testing.assert_allclose(
        segmentation_average_precision(*tensors),
        sklearn_average_precision(attribution, mask, ignore),
        rtol=0,
        atol=1e-12,
    )


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    images(
        st.sampled_from([-3e4, -2.0, -1.99, -1e-40, -0.0, 0.0, 1e-40, 1.99, 2.0, 3e4])
        | st.floats(-2, 2)
    ),
)
def test_narrow_types_equal_scikit_learn(dtype, example):
    attribution, mask, ignore = (torch.from_numpy(array) for array in example)
    attribution = attribution.to(dtype)
    found = segmentation_average_precision(attribution, mask, ignore)
    expected = sklearn_average_precision(attribution.double().numpy(), mask.numpy(), ignore.numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_image_alone_equals_it_among_others(dtype):
    generator = torch.Generator().manual_seed(0)
    attribution = torch.randint(-9, 9, (7, 8, 8), generator=generator).to(dtype)
    mask = torch.rand(7, 3, 8, 8, generator=generator) > 0.7
    whole = segmentation_average_precision(attribution, mask)
    pairs = zip(attribution.split(1), mask.split(1), strict=True)
    alone = [segmentation_average_precision(*pair) for pair in pairs]
    assert torch.equal(torch.cat(alone), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_large_images_equal_scikit_learn_whatever_the_dtype(dtype):
    generator = torch.Generator().manual_seed(0)
    attribution = torch.randn(3, 224, 224, generator=generator).to(dtype)
    mask = torch.randn(3, 224, 224, generator=generator) + 0.5 * attribution > 1
    expected = sklearn_average_precision(
        attribution.double().numpy(), mask.numpy(), np.zeros(mask.shape, dtype=bool)
    )
    found = segmentation_average_precision(attribution, mask)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_each_image_is_ranked_by_itself():
    generator = torch.Generator().manual_seed(0)
    attribution = torch.randint(-3, 3, (5, 9, 8), generator=generator).double()
    mask = torch.rand(5, 9, 8, generator=generator) > 0.7
    whole = segmentation_average_precision(attribution, mask)
    alone = [
        segmentation_average_precision(*pair)
        for pair in zip(attribution.split(1), mask.split(1), strict=True)
    ]
    torch.testing.assert_close(whole, torch.cat(alone), rtol=0, atol=1e-12)


def test_extreme_maps():
    mask = torch.zeros(1, 10, 10, dtype=torch.bool)
    mask[:, :2] = True
    assert segmentation_average_precision(mask.float(), mask) == 1
    assert segmentation_average_precision(torch.zeros(1, 10, 10), mask).item() == pytest.approx(0.2)
    assert segmentation_average_precision(torch.zeros(1, 10, 10), torch.ones_like(mask)) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_values_matter_on_pixels_that_count_only(value):
    generator = torch.Generator().manual_seed(0)
    attribution = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 4, 4, generator=generator) > 0.5
    ignore = torch.zeros_like(mask)
    ignore[0, 1, 1] = True
    expected = segmentation_average_precision(attribution, mask, ignore)
    attribution[:, 1, 1] = value
    found = segmentation_average_precision(attribution, mask, ignore)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-12)
    assert found[1].isnan()


def test_metric_averages_the_images_that_can_be_scored():
    attribution = torch.tensor([[3.0, 2.0, 1.0]]).repeat(5, 1)[:, None]
    mask = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1]])[:, None].bool()
    ignore = torch.zeros_like(mask)
    ignore[3, 0, 2] = True  # its only positive pixel
    attribution[2, 0, 0] = attribution[4, 0, 0] = math.nan
    metric = SegmentationAP()
    assert metric(attribution, mask, ignore) == pytest.approx((1 + 1 / 2) / 2)
    assert (metric.num_samples, metric.num_skipped, metric.num_invalid) == (2, 2, 1)


def test_metric_of_skipped_images_alone_is_nan():
    metric = SegmentationAP()
    assert metric(torch.zeros(2, 3, 3), torch.zeros(2, 3, 3, dtype=torch.bool)).isnan()
    assert (metric.num_samples, metric.num_skipped, metric.num_invalid) == (0, 2, 0)


BOOLEAN = torch.zeros(2, 3, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("attribution", "mask", "ignore", "message"),
    [
        pytest.param(
            torch.zeros(2, 1, 3, 3),
            BOOLEAN,
            None,
            r"`attribution` to have shape \[B, H, W\] but got \[2, 1, 3, 3\]",
            id="channels",
        ),
        pytest.param(
            torch.zeros(0, 3, 3),
            BOOLEAN,
            None,
            r"`attribution` to hold at least one value but got shape \[0, 3, 3\]",
            id="no_image",
        ),
        pytest.param(
            torch.zeros(2, 3, 3).int(),
            BOOLEAN,
            None,
            r"`attribution` to be a floating point tensor but got torch\.int32",
            id="integer_attribution",
        ),
        pytest.param(
            torch.zeros(2, 3, 3),
            BOOLEAN.long(),
            None,
            r"`mask` to be a boolean tensor but got torch\.int64",
            id="integer_mask",
        ),
        pytest.param(
            torch.zeros(2, 3, 3),
            BOOLEAN[:1],
            None,
            r"`mask` to have shape \[2, 3, 3\] to match `attribution` but got \[1, 3, 3\]",
            id="broadcastable_mask",
        ),
        pytest.param(
            torch.zeros(2, 3, 3),
            BOOLEAN,
            BOOLEAN.float(),
            r"`ignore` to be a boolean tensor but got torch\.float32",
            id="float_ignore",
        ),
        pytest.param(
            torch.zeros(2, 3, 3),
            BOOLEAN,
            BOOLEAN[:, :2],
            r"`ignore` to have shape \[2, 3, 3\] to match `attribution` but got \[2, 2, 3\]",
            id="small_ignore",
        ),
    ],
)
def test_bad_arguments(attribution, mask, ignore, message):
    with pytest.raises(ValueError, match=f"Expected argument {message}"):
        segmentation_average_precision(attribution, mask, ignore)
    metric = SegmentationAP()
    with pytest.raises(ValueError, match=f"Expected argument {message}"):
        metric.update(attribution, mask, ignore)
    assert metric.num_samples + metric.num_skipped + metric.num_invalid == 0
