"""Edges of what metrics take: equal, huge and tiny values, unusual shapes and types."""

import pytest
import torch

from libragrad_lightning.metrics import functional as fn
from libragrad_lightning.metrics.functional.scores import SCORES


def row(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype).view(1, 1, -1)


@pytest.mark.parametrize("value", [0.7, 0.1, -0.3, 1e-310, 1e308, 0.0])
@pytest.mark.parametrize("count", [2, 3, 7, 49])
def test_nothing_of_equal_values_is_above_their_mean(value, count):
    maps = torch.full((1, 1, count), value, dtype=torch.float64)
    confusion = fn.mask_confusion(maps, torch.ones_like(maps, dtype=torch.bool))
    assert confusion[0, 1].tolist() == [count, 0]


@pytest.mark.parametrize("scale", [1e-310, 1e-160, 1.0, 1e160, 1.7e308])
def test_sums_of_huge_and_tiny_values_are_right(scale):
    inside = torch.tensor([[[True, True, False]]])
    maps = row(1.0, 0.6, -0.6) * scale
    assert fn.mask_confusion(maps, inside)[0].tolist() == [[1, 0], [0, 2]]
    halves = row(1.0, 1.0, 0.0) * scale
    half = torch.tensor([[[True, False, False]]])
    assert fn.energy_inside(halves, half).item() == 0.5
    assert fn.target_share(halves, half, ~half).item() == 0.5


SHAPES = [torch.rand(3), torch.rand(2, 2, 2, 3), torch.rand(0, 3), torch.rand(2, 0)]


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("logits", SHAPES, ids=lambda logits: str(tuple(logits.shape)))
def test_logits_of_other_shapes_are_refused(score, logits):
    with pytest.raises(ValueError, match="Expected argument `logits` to"):
        score(logits, torch.zeros(len(logits), dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.int32])
def test_class_indices_of_any_integer_type_are_taken(dtype):
    logits, target = torch.randn(3, 4), torch.tensor([0, 3, 1])
    for score in SCORES.values():
        assert torch.equal(score(logits, target.to(dtype)), score(logits, target))


@pytest.mark.parametrize("value", [1e308, -1.7e308, 1e-300])
@pytest.mark.parametrize("groups", [None, torch.tensor([0, 0, 1, 2, 2, 2])])
def test_intervals_of_huge_and_tiny_values_are_right(value, groups):
    samples = torch.full((6,), value, dtype=torch.float64)
    found = fn.bootstrap_interval(samples, fn.Bootstrap(num_resamples=20), groups=groups)
    for bound in (found.value, found.lower, found.upper):
        assert bound.item() == pytest.approx(value, rel=1e-12)
