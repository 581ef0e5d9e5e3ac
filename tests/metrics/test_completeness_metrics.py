import numpy as np
import pytest
import torch

from libragrad_lightning.metrics import CompletenessError, RelativeCompletenessError
from libragrad_lightning.metrics.functional import (
    completeness_error,
    relative_completeness_error,
)

torch.set_num_threads(1)
TOTAL = np.array([1.5, -2.0, 0.25, 7.0])
LOGIT = np.array([1.0, -4.0, -0.5, 7.0])


def test_errors_equal_numpy():
    total, logit = torch.from_numpy(TOTAL), torch.from_numpy(LOGIT)
    absolute = np.abs(TOTAL - LOGIT)
    np.testing.assert_allclose(completeness_error(total, logit), absolute, atol=1e-12)
    np.testing.assert_allclose(
        relative_completeness_error(total, logit), absolute / np.abs(LOGIT), atol=1e-12
    )
    assert CompletenessError()(total, logit).item() == pytest.approx(3.25 / 4, abs=1e-12)
    assert RelativeCompletenessError()(total, logit).item() == pytest.approx(2.5 / 4, abs=1e-12)


def test_small_errors_of_large_logits_survive_float32():
    logit = torch.full((1000,), 10.0)
    assert CompletenessError()(logit + 2**-20, logit) == 2**-20


def test_a_zero_logit_has_no_relative_error():
    total, logit = torch.tensor([1.0, 0.0, 3.0]), torch.tensor([0.0, 0.0, 2.0])
    metric = RelativeCompletenessError()
    assert metric(total, logit) == 0.5
    assert metric.num_invalid == 2
    assert CompletenessError()(total, logit) == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", [CompletenessError, RelativeCompletenessError])
@pytest.mark.parametrize(
    ("total", "logit", "message"),
    [
        pytest.param(
            torch.zeros(2, 1),
            torch.zeros(2),
            r"`attribution_total` to have shape \[B\] but got \[2, 1\]",
            id="total_not_reduced",
        ),
        pytest.param(
            torch.zeros(2),
            torch.zeros(2, 1),
            r"`logit` to have shape \[2\] to match `attribution_total` but got \[2, 1\]",
            id="broadcastable_logit",
        ),
        pytest.param(
            torch.zeros(0),
            torch.zeros(0),
            r"`attribution_total` to hold at least one value but got shape \[0\]",
            id="no_sample",
        ),
        pytest.param(
            torch.zeros(2).long(),
            torch.zeros(2),
            r"`attribution_total` to be a floating point tensor but got torch\.int64",
            id="integer_total",
        ),
        pytest.param(
            torch.zeros(2),
            torch.zeros(2, dtype=torch.complex64),
            r"`logit` to be a floating point tensor but got torch\.complex64",
            id="complex_logit",
        ),
    ],
)
def test_bad_arguments(metric, total, logit, message):
    with pytest.raises(ValueError, match=message):
        metric().update(total, logit)


def test_blocks_are_averaged_together_and_apart():
    total = torch.randn(3, 5, dtype=torch.float64)
    logit = torch.randn(5, dtype=torch.float64)
    errors = np.abs(total.numpy() - logit.numpy())
    relative = errors / np.abs(logit.numpy())
    for metric, expected in (
        (CompletenessError(num_blocks=3), errors),
        (RelativeCompletenessError(num_blocks=3), relative),
    ):
        metric.update(total[:, :2], logit[:2])
        metric.update(total[:, 2:], logit[2:])
        assert metric.compute().item() == pytest.approx(expected.mean(), abs=1e-12)
        np.testing.assert_allclose(metric.per_block(), expected.mean(axis=1), atol=1e-12)
    alone = CompletenessError()
    alone.update(total[0], logit)
    assert alone.per_block().item() == pytest.approx(errors[0].mean(), abs=1e-12)


@pytest.mark.parametrize("num_blocks", [0, 1.0, True])
def test_number_of_blocks_must_be_a_positive_integer(num_blocks):
    with pytest.raises(ValueError, match=r"`num_blocks` to be a positive integer but got"):
        CompletenessError(num_blocks)


def test_blocks_must_be_as_many_as_said():
    message = r"`attribution_total` to hold 3 blocks, as argument `num_blocks` says, but got 2\."
    with pytest.raises(ValueError, match=message):
        CompletenessError(3).update(torch.zeros(2, 4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"`attribution_total` to have shape \[L, B\] but got"):
        CompletenessError(3).update(torch.zeros(4), torch.zeros(4))
