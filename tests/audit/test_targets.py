"""Which classes are explained beside the one that is asked for, and what is said of them."""

import pytest
import torch

from libragrad_lightning.audit.tasks import ranked_classes, shown_score

SCORES = torch.tensor([0.5, -1.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("task", "label", "expected"),
    [
        ("multiclass", None, [2, 3, 0, 1]),
        ("multiclass", torch.tensor(1), [1, 2, 3, 0]),
        ("multiclass", torch.tensor(-1), [2, 3, 0, 1]),
        ("multilabel", torch.tensor([True, True, False, False]), [0, 1, 2, 3]),
        ("regression", torch.tensor([9.0, 9.0, 9.0, 9.0]), [2, 3, 0, 1]),
    ],
)
def test_true_classes_come_before_those_with_the_largest_scores(task, label, expected):
    assert ranked_classes(SCORES, label, task) == expected


@pytest.mark.parametrize(("logit", "expected"), [(1.0, [1, 0]), (-1.0, [0, 1])])
def test_one_logit_ranks_two_classes(logit, expected):
    assert ranked_classes(torch.tensor([logit]), None, "binary") == expected
    chances = [shown_score(torch.tensor([logit]), number, "binary") for number in expected]
    assert chances == pytest.approx([0.7310586, 0.2689414])


def test_classes_and_labels_have_probabilities_and_outputs_have_values():
    assert shown_score(SCORES, 2, "multiclass") == pytest.approx(float(SCORES.softmax(0)[2]))
    assert shown_score(SCORES, 2, "multilabel") == pytest.approx(float(SCORES[2].sigmoid()))
    assert shown_score(SCORES, 2, "regression") == 2.0
