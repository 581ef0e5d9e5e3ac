import numpy as np
import pytest
import torch

from libragrad_lightning.metrics import AOPC, DeletionAccuracy, LogOddsDrop, SymmetricRelevanceGain
from libragrad_lightning.metrics.functional import (
    deletion_accuracy_curve,
    target_accuracy,
    target_log_probability,
    target_logit,
    target_probability,
)

torch.set_num_threads(1)
FUNCTIONS = (target_accuracy, target_log_probability, target_logit, target_probability)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_binary_heads_explain_either_side():
    logits = torch.randn(6, 4, 1, dtype=torch.float64)
    target = torch.tensor([0, 1, 1, 0, 1, 0])
    z = logits[..., 0].numpy()
    side = np.where(target.numpy() == 1, 1, -1)[:, None]
    np.testing.assert_allclose(target_logit(logits, target, "binary"), side * z, atol=1e-12)
    p = sigmoid(side * z)
    np.testing.assert_allclose(target_probability(logits, target, "binary"), p, atol=1e-12)
    np.testing.assert_allclose(
        target_log_probability(logits, target, "binary"), np.log(p), atol=1e-12
    )
    np.testing.assert_array_equal(target_accuracy(logits, target, "binary"), p > 0.5)


def test_a_binary_head_equals_the_two_classes_it_stands_for():
    masked, intact = torch.randn(5, 3, 1, dtype=torch.float64), torch.randn(5, 1).double()
    target = torch.tensor([0, 1, 1, 0, 1])

    def two(logits):
        return torch.cat([torch.zeros_like(logits), logits], dim=-1)

    for metric in (AOPC, LogOddsDrop):
        found = metric(3, task="binary")(intact, masked, target)
        expected = metric(3)(two(intact), two(masked), target)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    found = SymmetricRelevanceGain(3, task="binary")(masked, masked.flip(1), target)
    expected = SymmetricRelevanceGain(3)(two(masked), two(masked.flip(1)), target)
    assert found == expected
    assert DeletionAccuracy(3, task="binary")(masked, target) == DeletionAccuracy(3)(
        two(masked), target
    )


def test_labels_of_a_multilabel_head_are_read_one_by_one():
    logits = torch.randn(4, 5, dtype=torch.float64)
    target = torch.tensor([4, 0, 2, 2])
    z = logits.numpy()[np.arange(4), target.numpy()]
    np.testing.assert_allclose(target_probability(logits, target, "multilabel"), sigmoid(z))
    np.testing.assert_array_equal(target_accuracy(logits, target, "multilabel"), z > 0)
    np.testing.assert_array_equal(target_logit(logits, target, "multilabel"), z)
    several = logits[:, None].expand(-1, 3, -1)
    assert deletion_accuracy_curve(several, target, "multilabel").shape == (4, 3)


def test_a_logit_of_zero_predicts_the_side_zero():
    logits, sides = torch.zeros(2, 1), torch.tensor([0, 1])
    assert target_accuracy(logits, sides, "binary").tolist() == [1.0, 0.0]
    assert target_accuracy(logits, torch.tensor([0, 0]), "multilabel").tolist() == [0.0, 0.0]


def test_sigmoid_scores_do_not_underflow():
    logits = torch.tensor([[-2000.0]])
    assert target_log_probability(logits, torch.tensor([1]), "binary") == -2000


def test_only_the_logits_that_a_score_rests_on_have_to_be_finite():
    logits = torch.zeros(2, 3)
    logits[:, 0] = torch.nan
    target = torch.tensor([0, 1])
    for function in FUNCTIONS:
        assert function(logits, target, "multiclass").isnan().tolist() == [True, True]
        assert function(logits, target, "multilabel").isnan().tolist() == [True, False]
        assert function(logits[:, :1], target, "binary").isnan().all()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_bad_arguments(function):
    target = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"`task` to be one of \['multiclass', .*'regression'"):
        function(torch.zeros(2, 3), target, "regression")
    with pytest.raises(ValueError, match=r"one value per sample under argument `task='binary'`"):
        function(torch.zeros(2, 3), target, "binary")
    with pytest.raises(ValueError, match=r"class indices from 0 to 1 but got values from 0 to 2"):
        function(torch.zeros(2, 1), torch.tensor([0, 2]), "binary")
    with pytest.raises(ValueError, match=r"class indices from 0 to 2 but got values from -1 to 0"):
        function(torch.zeros(2, 3), torch.tensor([0, -1]), "multilabel")


def test_metrics_refuse_unknown_tasks_and_scores():
    with pytest.raises(ValueError, match=r"`task` to be one of .* but got 'multi'"):
        AOPC(3, task="multi")
    with pytest.raises(ValueError, match=r"`score` to be one of .* but got 'margin'"):
        SymmetricRelevanceGain(3, score="margin")
