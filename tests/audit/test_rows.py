"""What is explained of an image: the image, its label, or every label that it has."""

import pytest
import torch
from config_cases import config

from libragrad_lightning.audit import ProbeGroup, Samples
from libragrad_lightning.audit.rows import explained_rows

SEVERAL = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])


def group(labels):
    images = torch.arange(3.0).view(3, 1, 1, 1)
    return ProbeGroup((7, 3, 9), (0, 1, 4), Samples(images, labels))


@pytest.mark.parametrize(
    ("labels", "target", "task"),
    [
        (torch.tensor([2, 0, 1]), "predicted", "multiclass"),
        (None, "label", "multiclass"),
        (torch.rand(3, 2), "label", "regression"),
        (SEVERAL, 1, "multilabel"),
    ],
)
def test_every_image_is_explained_once(labels, target, task):
    rows = explained_rows(group(labels), config(target=target), task)
    assert rows.keys == ((7, -1), (3, -1), (9, -1))
    assert rows.numbers == (0, 1, 4)
    assert rows.labels is labels
    truth = rows.truth(1, 3)
    assert truth.rows.tolist() == [0, 1]
    assert truth.labels is None or torch.equal(truth.labels, labels[1:])


def test_images_without_a_label_have_none_to_explain():
    rows = explained_rows(group(torch.tensor([2, -1, 1])), config(target="label"), "multiclass")
    assert rows.keys == ((7, -1), (9, -1))
    assert rows.numbers == (0, 4)
    assert rows.samples.images.flatten().tolist() == [0, 2]
    assert rows.labels.tolist() == rows.samples.labels.tolist() == [2, 1]


def test_of_several_labels_each_is_explained_and_compared_once():
    rows = explained_rows(group(SEVERAL), config(target="label"), "multilabel")
    assert rows.keys == ((7, 0), (7, 2), (9, 1))
    assert rows.numbers == (0, 0, 4)
    assert rows.samples.labels.tolist() == [0, 2, 1]
    assert rows.samples.labels.dtype == torch.int64
    assert rows.samples.images.flatten().tolist() == [0, 0, 2]
    assert torch.equal(rows.labels, SEVERAL[[0, 0, 2]])
    whole = rows.truth(0, 3)
    assert whole.rows.tolist() == [0, 2]
    assert torch.equal(whole.labels, SEVERAL[[0, 2]])
    # Parts of one image that are explained apart are compared in the first of them.
    assert [rows.truth(i, i + 1).rows.tolist() for i in range(3)] == [[0], [], [0]]
    assert rows.truth(1, 3).rows.tolist() == [1]
