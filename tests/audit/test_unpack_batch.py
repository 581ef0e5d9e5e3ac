"""Labels, masks and images are found in batches of the usual forms."""

import pytest
import torch
from audit_cases import data

from libragrad_lightning.audit import AuditError, unpack_batch
from libragrad_lightning.audit.samples import joined, with_object_masks
from libragrad_lightning.audit.tasks import canonical_labels

IMAGES, LABELS, MASKS = data(4).tensors


def left_half():
    ignore = torch.zeros(len(IMAGES), 32, 32, dtype=torch.bool)
    ignore[:, :, :16] = True
    return ignore


@pytest.mark.parametrize(
    "batch",
    [
        (IMAGES, LABELS, MASKS),
        [IMAGES, LABELS, MASKS[:, None].to(torch.uint8)],
        {"image": IMAGES, "label": LABELS, "mask": MASKS},
        {"pixel_values": IMAGES, "labels": LABELS.int(), "masks": MASKS.long()},
    ],
    ids=["tuple", "list", "dict", "transformers"],
)
def test_usual_batches_are_understood(batch):
    samples = unpack_batch(batch)
    assert torch.equal(samples.images, IMAGES)
    labels = canonical_labels(samples.labels, "multiclass", 4)
    assert torch.equal(labels, LABELS)
    assert labels.dtype == torch.int64
    assert torch.equal(with_object_masks([samples])[0].masks, MASKS)


@pytest.mark.parametrize("batch", [IMAGES, [IMAGES], {"x": IMAGES}, {"a": IMAGES}])
def test_images_alone_are_enough(batch):
    samples = unpack_batch(batch)
    assert torch.equal(samples.images, IMAGES)
    assert samples.labels is None
    assert samples.masks is None


@pytest.mark.parametrize("batch", ["text", 3, {"a": LABELS}, [LABELS], torch.zeros(3)])
def test_batches_without_images_say_what_was_seen(batch):
    with pytest.raises(AuditError, match="found no images"):
        unpack_batch(batch)


def test_labels_of_another_length():
    with pytest.raises(AuditError, match=r"one row of labels per image but .* shape \(2,\) for 4"):
        unpack_batch({"image": IMAGES, "label": LABELS[:2]})
    assert unpack_batch((IMAGES, LABELS[:2])).labels is None  # nothing says that they are labels


@pytest.mark.parametrize("key", ["ignore", "ignore_mask"])
def test_pixels_to_ignore_are_found_by_their_name_in_any_form(key):
    ignore = left_half()
    for form in (ignore, ignore[:, None], ignore.to(torch.uint8) * 255, ignore.float()):
        samples = unpack_batch({"image": IMAGES, "mask": MASKS, key: form})
        assert torch.equal(with_object_masks([samples])[0].ignore, ignore)
    assert unpack_batch({"image": IMAGES, "mask": ignore}).ignore is None
    assert unpack_batch((IMAGES, ignore, ignore)).ignore is None


def test_pixels_to_ignore_of_another_size_get_a_sentence():
    batch = {"image": IMAGES, "ignore": left_half()[:, :16]}
    with pytest.raises(AuditError, match=r"ignore of shape \(4, 16, 32\).*resize"):
        unpack_batch(batch)


def test_samples_keep_their_pixels_to_ignore_where_they_go():
    some = {"image": IMAGES, "label": LABELS, "mask": MASKS}
    both = [unpack_batch(batch) for batch in (some | {"ignore": left_half()}, some)]
    assert joined([both[1]]).ignore is None
    ignore = joined(both).ignore
    assert torch.equal(ignore, torch.cat([left_half(), torch.zeros_like(left_half())]))
    samples = joined(both)[slice(3, 6)].stored().to(torch.device("cpu"), torch.float64)
    assert samples.images.dtype == torch.float64
    assert torch.equal(samples.ignore, ignore[3:6])


@pytest.mark.parametrize(
    ("batch", "texts"),
    [
        ({"image": IMAGES, "caption": list("abcd"), "path": list("efgh")}, tuple("abcd")),
        ((IMAGES, tuple("abcd")), tuple("abcd")),
        ({"image": IMAGES, "path": list("efgh")}, ()),
        ({"image": IMAGES, "text": list("abc")}, ()),
        ({"image": IMAGES, "text": list("abcd"), "prompt": list("efgh")}, ()),
    ],
)
def test_the_texts_of_images_are_found(batch, texts):
    assert unpack_batch(batch).texts == texts
