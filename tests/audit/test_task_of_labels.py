"""Losses, labels and the number of scores tell the task, and give labels their form."""

import pytest
import torch

from libragrad_lightning.audit import AuditError
from libragrad_lightning.audit.tasks import canonical_labels, correctness, has_label, told_task

CLASSES = torch.tensor([0, 2, 1])
ONE_HOT = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 1, 0]])
SEVERAL = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]])
SOFT = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6], [1.0, 0.0, 0.0]])
YES_OR_NO = torch.tensor([0, 1, 1])
AGES = torch.tensor([0.5, 31.25, 7.0])
SIZES = torch.tensor([[0.5, 1.5, 2.5], [0.0, -1.0, 7.5], [1.0, 2.0, 3.0]])


@pytest.mark.parametrize(
    ("functions", "labels", "outputs", "expected"),
    [
        (["cross_entropy"], CLASSES, 3, "multiclass"),
        (["cross_entropy"], None, 3, "multiclass"),
        (["argmax"], AGES, 3, "multiclass"),
        (["binary_cross_entropy_with_logits"], YES_OR_NO, 1, "binary"),
        (["sigmoid"], None, 1, "binary"),
        (["sigmoid"], SEVERAL, 3, "multilabel"),
        (["sigmoid"], None, 3, "multilabel"),
        (["sigmoid"], CLASSES, 3, "multiclass"),
        (["mse_loss"], AGES, 1, "regression"),
        (["mse_loss"], YES_OR_NO, 1, "regression"),
        (["mse_loss"], ONE_HOT, 3, "multiclass"),
        (["mse_loss"], SEVERAL, 3, "regression"),
        (["mse_loss"], SOFT, 3, "regression"),
        (["mse_loss"], ONE_HOT[:, :2], 3, "regression"),
        (["sigmoid", "mse_loss"], AGES, 1, "regression"),
        (["sigmoid", "mse_loss"], YES_OR_NO, 1, "binary"),
        (["cross_entropy"], YES_OR_NO, 1, "binary"),
        (["gt"], None, 1, "binary"),
        (["gt"], CLASSES, 1, "binary"),
        (["gt"], CLASSES, 3, "multiclass"),
        ([], None, 3, "multiclass"),
        ([], YES_OR_NO, 1, "binary"),
        ([], YES_OR_NO.bool(), 1, "binary"),
        ([], SEVERAL.bool(), 3, "multilabel"),
        ([], CLASSES, 1, "regression"),
        ([], AGES, 1, "regression"),
        ([], CLASSES, 3, "multiclass"),
        ([], CLASSES.float(), 3, "multiclass"),
        ([], AGES, 3, "regression"),
        ([], ONE_HOT, 3, "multiclass"),
        ([], SOFT, 3, "multiclass"),
        ([], SEVERAL, 3, "multilabel"),
        ([], SEVERAL.float(), 3, "multilabel"),
        ([], SIZES, 3, "regression"),
        ([], CLASSES[:, None], 3, "multiclass"),
    ],
)
def test_the_task_is_told(functions, labels, outputs, expected):
    assert told_task(functions, labels, outputs) == expected


@pytest.mark.parametrize(
    ("labels", "said"),
    [(None, "what the only score of an image means"), (YES_OR_NO.float(), "floating 0 and 1")],
)
def test_what_does_not_tell_the_task_is_asked_for(labels, said):
    with pytest.raises(AuditError, match=f"{said}.*`task`, 'binary' or 'regression'"):
        told_task([], labels, 1)


@pytest.mark.parametrize(
    ("labels", "task", "outputs", "expected"),
    [
        (CLASSES, "multiclass", 3, CLASSES),
        (CLASSES.int()[:, None], "multiclass", 3, CLASSES),
        (torch.tensor([-5, 0, 2]), "multiclass", 3, torch.tensor([-1, 0, 2])),
        (ONE_HOT, "multiclass", 3, CLASSES),
        (ONE_HOT * 0, "multiclass", 3, torch.tensor([-1, -1, -1])),
        (SOFT, "multiclass", 3, torch.tensor([0, 2, 0])),
        (YES_OR_NO, "binary", 1, YES_OR_NO),
        (torch.tensor([0.2, 0.5, 0.9]), "binary", 1, torch.tensor([0, 1, 1])),
        (torch.tensor([[1, 0], [0, 1]]), "binary", 1, torch.tensor([0, 1])),
        (SEVERAL, "multilabel", 3, SEVERAL.bool()),
        (SEVERAL / 2, "multilabel", 3, SEVERAL.bool()),
        (SEVERAL * 0.49, "multilabel", 3, torch.zeros(3, 3, dtype=torch.bool)),
        (AGES.double(), "regression", 1, AGES[:, None]),
        (SIZES, "regression", 3, SIZES),
    ],
)
def test_labels_get_the_form_of_their_task(labels, task, outputs, expected):
    found = canonical_labels(labels, task, outputs)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("labels", "task", "outputs", "said"),
    [
        (SIZES, "regression", 2, r"labels of shape \(3, 3\) for 2 scores"),
        (CLASSES, "multilabel", 3, r"labels of shape \(3,\) for 3 scores"),
        (SOFT, "multiclass", 4, r"labels of shape \(3, 3\) for 4 scores"),
        (SEVERAL, "multiclass", 3, "some images have several; pass `task='multilabel'`"),
        (CLASSES, "multiclass", 2, "the label 2, but the scores are those of classes 0 to 1"),
        (CLASSES, "binary", 1, "the label 2, but the scores are those of classes 0 to 1"),
        (torch.tensor([0.2, 3.0]), "binary", 1, "the label 3"),
    ],
)
def test_labels_that_do_not_fit(labels, task, outputs, said):
    with pytest.raises(AuditError, match=said):
        canonical_labels(labels, task, outputs)


def test_who_has_a_label():
    assert has_label(torch.tensor([0, -1, 3])).tolist() == [True, False, True]
    several = has_label(SEVERAL.bool())
    assert (several.tolist(), several.dtype) == ([True, True, True], torch.bool)


def test_how_right_a_model_is():
    logits = torch.tensor([[2.0, -1.0, -3.0], [0.0, 1.0, -1.0]])
    assert correctness(logits, torch.tensor([0, 2]), "multiclass").tolist() == [1, 0]
    assert correctness(logits[:, :1] - 1, torch.tensor([1, 0]), "binary").tolist() == [1, 1]
    labels = torch.tensor([[True, True, False], [False, True, False]])
    shares = correctness(logits, labels, "multilabel")
    torch.testing.assert_close(shares, torch.tensor([2 / 3, 1.0]))
    errors = correctness(logits, torch.zeros(2, 3), "regression")
    torch.testing.assert_close(errors, torch.tensor([2.0, 2 / 3]))
