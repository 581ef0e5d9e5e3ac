"""The line below a picture says what is true, what the model says, and what is explained."""

import pytest
import torch

from libragrad_lightning.audit import ExplainedTarget
from libragrad_lightning.reporting.captions import label_tag, said, title

NAMES = ["ant", "bee", "cat", "dog", "elk", "fox"]
SCORES = torch.tensor([1.0, 3.0, 0.0])
PROBABILITIES = [f"{p:.2f}" for p in SCORES.softmax(0).tolist()]


@pytest.mark.parametrize(
    ("target", "label", "names", "expected"),
    [
        (1, 1, NAMES, ["label bee", f"predicted bee {PROBABILITIES[1]}"]),
        (1, None, None, [f"predicted 1 {PROBABILITIES[1]}"]),
        (1, -1, NAMES, [f"predicted bee {PROBABILITIES[1]}"]),
        (0, 0, NAMES, ["label ant", f"predicted bee {PROBABILITIES[1]}", "explained ant"]),
        (2, 0, NAMES[:2], ["label ant", f"predicted bee {PROBABILITIES[1]}", "explained 2"]),
        (1, 1, ["ant", "\a"], ["label 1", f"predicted 1 {PROBABILITIES[1]}"]),
    ],
)
def test_classes(target, label, names, expected):
    label = None if label is None else torch.tensor(label)
    assert said("multiclass", SCORES, target, label, names) == expected


@pytest.mark.parametrize(
    ("logit", "predicted"), [(-2.0, "predicted ant 0.88"), (2.0, "predicted bee 0.88")]
)
def test_one_logit_has_two_classes(logit, predicted):
    label = torch.tensor(0)
    found = said("binary", torch.tensor([logit]), 1 if logit > 0 else 0, label, NAMES[:2])
    assert found == ["label ant", predicted]


def test_labels_are_listed_most_certain_first_and_no_more_than_four():
    scores = torch.tensor([1.0, -1.0, 3.0, 2.0, 0.5, 0.25])
    label = torch.tensor([0, 1, 1, 0, 0, 0])
    p = [f"{name} {p:.2f}" for name, p in zip(NAMES, scores.sigmoid().tolist(), strict=True)]
    assert said("multilabel", scores, 1, label, NAMES) == [
        "labels bee, cat",
        f"predicted {p[2]}, {p[3]}, {p[0]}, {p[4]} and 1 more",
        f"explained {p[1]}",
    ]
    assert said("multilabel", -scores.abs(), 0, torch.zeros(6), None) == [
        "labels none",
        "predicted none",
        "explained 0 0.27",
    ]
    four = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0])
    assert said("multilabel", four, 0, None, NAMES)[0].endswith("dog 0.73")


def test_quantities():
    scores, label = torch.tensor([0.123456, 98765.0]), torch.tensor([1.5, 2.5])
    assert said("regression", scores, 1, label, NAMES) == [
        "label 2.5",
        "output 9.876e+04",
        "explained bee",
    ]
    assert said("regression", scores, 0, None, None) == ["output 0.1235", "explained 0"]
    assert said("regression", scores[:1], 0, label, None) == ["label 1.5", "output 0.1235"]
    assert said("regression", scores[:1], 0, None, NAMES) == ["output 0.1235"]
    assert said("regression", scores[:1], 0, None, ["age"]) == ["output 0.1235", "explained age"]


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        (None, NAMES, "dog 0.25"),
        (None, None, "3 0.25"),
        ("a red bus", NAMES, "a red bus 0.25"),
        ("", None, "text of image 3 0.25"),
        ("\a", None, "text of image 3 0.25"),
    ],
)
def test_a_target_is_named_by_its_text_or_class(text, names, expected):
    assert title(ExplainedTarget(3, text, 0.25, {}), names) == expected


@pytest.mark.parametrize(
    ("label", "task", "names", "expected"),
    [
        (torch.tensor(1), "multiclass", NAMES, "bee"),
        (torch.tensor(1), "multiclass", None, "class_1"),
        (torch.tensor(7), "multiclass", NAMES, "class_7"),
        (torch.tensor(-1), "multiclass", NAMES, ""),
        (torch.tensor(0), "binary", ["T-shirt / top (new)"], "T-shirt_top_new_"),
        (torch.tensor([0, 1, 0, 1]), "multilabel", NAMES, "bee_dog"),
        (torch.ones(6), "multilabel", ["a" * 30] * 6, "a" * 30 + "_" + "a" * 9),
        (torch.tensor([0.5]), "regression", NAMES, ""),
        (None, "multiclass", NAMES, ""),
    ],
)
def test_a_tag_tells_the_class_in_letters_that_loggers_like(label, task, names, expected):
    assert label_tag(label, task, names) == expected
