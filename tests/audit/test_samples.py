"""Samples: what is kept of a batch, and how several become one."""

import pytest
import torch

from libragrad_lightning.audit import AuditError, ProbeSet, Samples, Shard
from libragrad_lightning.audit.samples import (
    MaskNumbers,
    checked_samples,
    joined,
    masks_of,
    other_masks_of,
    with_object_masks,
)
from libragrad_lightning.audit.selection import Named


def test_images_outlive_a_loader_that_fills_one_buffer_again():
    buffer = Samples(
        torch.zeros(2, 3, 4, 4), torch.zeros(2), torch.zeros(2, 4, 4), torch.zeros(2, 4, 4).bool()
    )
    probe = ProbeSet(Named([0, 1, 2, 3]), Shard())
    for batch in (1, 2):
        for tensor in (buffer.images, buffer.labels, buffer.masks, buffer.ignore):
            tensor.fill_(batch)
        probe.add(buffer)
    (group,) = probe.groups()
    assert group.samples.images[:, 0, 0, 0].tolist() == [1, 1, 2, 2]
    assert group.samples.labels.tolist() == [1, 1, 2, 2]


def some(count=2, **others):
    return Samples(torch.arange(count * 48.0).view(count, 3, 4, 4), **others)


def test_rows_sizes_and_dtypes():
    samples = some(3, labels=torch.arange(3), others=(torch.arange(6).view(3, 2),))
    part = samples[slice(1, 3)]
    assert (len(part), part.labels.tolist(), part.others[0].tolist()) == (
        2,
        [1, 2],
        [[2, 3], [4, 5]],
    )
    assert samples.size == (3, 4, 4, 2)
    moved = samples.to(torch.device("cpu"), torch.float64)
    assert (moved.pixels.dtype, moved.labels.dtype) == (torch.float64, torch.int64)
    with pytest.raises(AuditError, match="labels or masks without images"):
        len(Samples(labels=torch.zeros(2)))


def test_labels_and_masks_stay_where_all_have_them_alike():
    masks, labels = torch.ones(2, 4, 4, dtype=torch.bool), torch.arange(2)
    both = joined([some(labels=labels, masks=masks), some(labels=labels + 2, masks=~masks)])
    assert both.labels.tolist() == [0, 1, 2, 3]
    assert both.masks.flatten(1).all(1).tolist() == [True, True, False, False]
    assert both.ignore is None
    assert torch.equal(both.pixels, torch.cat([some().pixels] * 2))
    one = joined([some(labels=labels), some(masks=masks)])
    assert (one.labels, one.masks) == (None, None)
    assert joined([some(labels=labels), some(labels=labels.float())]).labels is None
    assert joined([some(labels=labels), some(labels=labels[:, None])]).labels is None


def test_images_without_pixels_to_ignore_ignore_none():
    ignore = torch.ones(2, 4, 4, dtype=torch.bool)
    both = joined([some(), some(ignore=ignore)])
    assert both.ignore.flatten(1).all(1).tolist() == [False, False, True, True]
    assert not both.ignore[:2].any()


def test_what_255_is_may_not_change_from_some_images_to_others():
    images = torch.zeros(1, 1, 1, 4)
    alone, beside = (
        Samples(images, masks=torch.tensor([[m]])) for m in ([0, 0, 0, 255], [0, 0, 3, 255])
    )
    numbers = MaskNumbers()
    assert numbers.of_objects([beside])[0].masks.flatten().int().tolist() == [0, 0, 1, 0]
    assert numbers.of_objects([alone])[0].masks.flatten().int().tolist() == [0, 0, 0, 0]
    numbers = MaskNumbers()
    assert numbers.of_objects([alone])[0].masks.flatten().int().tolist() == [0, 0, 0, 1]
    with pytest.raises(AuditError, match=r"255 may be either object or void.*bool masks"):
        numbers.of_objects([beside])


@pytest.mark.parametrize(
    ("marks", "inside", "void"),
    [
        ([0, 1, 2, 3], [0, 1, 1, 1], None),
        ([0, 0, 255, 255], [0, 0, 1, 1], None),
        ([0, 1, 2, 255], [0, 1, 1, 0], [0, 0, 0, 1]),
        ([0, 1, 1, 255], [0, 1, 1, 0], [0, 0, 0, 1]),
        ([0, 1, -1, -7], [0, 1, 0, 0], [0, 0, 1, 1]),
        ([0.0, 0.49, 0.5, 1.0], [0, 0, 1, 1], None),
        ([0.0, 2.0, 3.0, 255.0], [0, 1, 1, 0], [0, 0, 0, 1]),
        ([0.0, 0.0, 255.0, 255.0], [0, 0, 1, 1], None),
        ([0.0, 1.0, 0.0, 255.0], [0, 1, 0, 0], [0, 0, 0, 1]),
        ([0.0, 0.5, 0.5, 255.0], [0, 1, 1, 1], None),
    ],
)
def test_masks_of_objects_and_void(marks, inside, void):
    (found,) = with_object_masks([Samples(torch.zeros(1, 1, 1, 4), masks=torch.tensor([[marks]]))])
    assert found.masks.dtype == torch.bool
    assert found.masks.flatten().int().tolist() == inside
    assert (found.ignore if void is None else found.ignore.flatten().int().tolist()) == void
    own = torch.tensor([[[1, 0, 0, 0]]])
    marked = Samples(torch.zeros(1, 1, 1, 4), masks=torch.tensor([[marks]]), ignore=own)
    expected = [max(a, b) for a, b in zip([1, 0, 0, 0], void or [0] * 4, strict=True)]
    assert with_object_masks([marked])[0].ignore.flatten().int().tolist() == expected


def test_what_255_is_is_decided_for_all_images_together():
    marks = torch.tensor([[[[0, 0, 0, 255]]], [[[0, 0, 3, 255]]], [[[1, 1, 1, 1]]]])
    images = torch.zeros(1, 1, 1, 4)
    found = with_object_masks([Samples(images, masks=m) for m in marks])
    assert [f.masks.flatten().int().tolist() for f in found] == [
        [0, 0, 0, 0],
        [0, 0, 1, 0],
        [1, 1, 1, 1],
    ]
    masks = torch.tensor([[[True, False, False, False]]])
    bare, own = with_object_masks([Samples(images), Samples(images, masks=masks)])
    assert bare.masks is None
    assert own.masks is masks


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": torch.zeros(2, 4, 4)}, r"images \[B, C, H, W\] but saw \(2, 4, 4\)"),
        ({"images": torch.full((2, 3, 4, 4), torch.inf)}, "hold NaN or infinite values"),
        ({"labels": torch.zeros(3)}, r"one row of labels per image but saw .* \(3,\) for 2"),
        ({"labels": torch.zeros(2, 1, 1)}, "one row of labels per image"),
        ({"masks": torch.zeros(2, 4, 5)}, r"saw masks of shape \(2, 4, 5\) for images"),
        ({"masks": torch.zeros(1, 4, 4)}, "resize the masks to the images"),
        ({"masks": torch.zeros(2, 3, 4, 5)}, r"saw masks of shape \(2, 3, 4, 5\) for images"),
        ({"ignore": torch.zeros(2, 2, 4, 4)}, "saw pixels to ignore of shape"),
        ({"texts": ("a cat",)}, "saw 1 texts for 2 images; return one text for each"),
    ],
)
def test_samples_that_do_not_fit_together(changes, said):
    given = {"images": torch.zeros(2, 3, 4, 4), "labels": torch.zeros(2)} | changes
    with pytest.raises(AuditError, match=said):
        checked_samples(Samples(**given))


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 1, 4, 4), (2, 4, 4, 1)])
def test_masks_may_have_a_channel(shape):
    masks = torch.arange(32).view(shape)
    found = checked_samples(some(masks=masks, ignore=masks, labels=torch.zeros(2, 5)))
    assert torch.equal(found.masks, torch.arange(32).view(2, 4, 4))
    assert torch.equal(found.ignore, found.masks)


def test_classes_may_have_masks_of_their_own():
    masks = torch.zeros(2, 3, 4, 4, dtype=torch.int64)
    masks[0, 1, 0], masks[1, 2, 1], masks[1, 0, 3, 3] = 1, 1, -1
    found = with_object_masks([checked_samples(some(masks=masks))])[0]
    chosen = masks_of(found.masks, torch.tensor([1, 2]))
    assert chosen.dtype == torch.bool
    assert torch.equal(chosen, torch.stack([masks[0, 1], masks[1, 2]]) > 0)
    assert found.ignore.nonzero().tolist() == [[1, 3, 3]]
    assert torch.equal(masks_of(chosen, torch.tensor([0, 0])), chosen)
    assert masks_of(None, torch.tensor([0])) is None


def test_texts_stay_with_their_images():
    samples = some(3, texts=("a", "b", "c"))
    assert samples[slice(1, 3)].texts == ("b", "c")
    assert samples[[2, 0]].texts == ("c", "a")
    assert joined([samples, some(1, texts=("d",))]).texts == ("a", "b", "c", "d")
    assert joined([samples, some(1)]).texts == ()
    assert samples.stored().texts == samples.texts


def test_other_objects_are_those_of_other_classes_unless_a_batch_names_them():
    masks = torch.zeros(2, 3, 4, 4, dtype=torch.bool)
    masks[:, 0, 0], masks[:, 1, 1], masks[:, 2, 2] = True, True, True
    of_classes = other_masks_of(some(masks=masks), torch.tensor([0, 2]))
    assert of_classes[0].any(1).tolist() == [False, True, True, False]
    assert of_classes[1].any(1).tolist() == [True, True, False, False]
    assert masks.sum() == 24
    named = torch.ones(2, 4, 4, dtype=torch.bool)
    assert other_masks_of(some(masks=masks, other_masks=named), torch.zeros(2)) is named
    assert other_masks_of(some(masks=masks[:, 0]), torch.zeros(2)) is None


def test_masks_of_other_objects_take_the_forms_of_masks():
    marks = torch.tensor([0.0, 0.4, 0.6, 1.0]).expand(1, 4, 4)
    for others, last in ((marks, [False, False, True, True]), (255 * marks, [False] + [True] * 3)):
        (found,) = with_object_masks([some(1, other_masks=others)])
        assert found.other_masks[0, 0].tolist() == last
    one = some(1, other_masks=torch.ones(1, 4, 4, dtype=torch.bool))
    assert joined([one, one]).other_masks.shape == (2, 4, 4)
    assert joined([one, some(1)]).other_masks is None
    with pytest.raises(AuditError, match="saw masks of other objects of shape"):
        checked_samples(some(1, other_masks=torch.ones(1, 5, 5)))
