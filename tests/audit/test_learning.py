"""What is learned of a step: the samples, the forward pass, the task, and what is said of it."""

import pytest
import torch
import torch.nn.functional as F
from step_cases import IMAGES, LABELS, TEXT, Root, watched
from torch import nn

from libragrad_lightning.audit import (
    AuditError,
    Samples,
    SeenStep,
    Source,
    parameter_owners,
    watched_step,
)
from libragrad_lightning.audit.replay import PairReplay

MASKS = torch.zeros(3, 4, 4, dtype=torch.bool)


def seen_in(step, batch=(IMAGES, LABELS), root=None):
    root, seen = watched(step, batch, root)
    return SeenStep(root, batch, seen, parameter_owners(root))


def learned(source, seen):
    found = source.found(seen)
    samples = source.samples(seen, found)
    return samples, source.learned(seen, found, samples)


def plain_step(root):
    F.cross_entropy(root.net(IMAGES), LABELS)


def test_what_a_step_says_of_itself():
    seen = seen_in(plain_step, {"image": IMAGES, "label": LABELS, "mask": MASKS})
    samples, found = learned(Source(), seen)
    assert torch.equal(samples.pixels, IMAGES)
    assert torch.equal(samples.labels, LABELS)
    assert torch.equal(samples.masks, MASKS)
    assert samples.others == ()
    assert (found.task, found.outputs, found.random, found.warnings) == ("multiclass", 3, False, ())
    assert found.notes == (
        "LibraGradAudit looks at `net`: images (3, 4, 4) to 3 scores (multiclass), labels and "
        "masks.",
    )
    assert torch.equal(found.call(IMAGES), seen.root.net(IMAGES))


def test_the_notes_name_what_the_step_goes_on_with_and_what_squashes():
    head = torch.randn(3, 5)

    def step(root):
        F.nll_loss((root.net(IMAGES) @ head).log_softmax(1), LABELS)

    _, found = learned(Source(), seen_in(step, (IMAGES,)))
    assert found.notes[0].startswith(
        "LibraGradAudit looks at `net`, with what the step makes of it"
    )
    assert found.notes[0].endswith("to 5 scores (multiclass), labels.")
    assert len(found.notes) == 1  # scores before a log-softmax of the step are no model's own

    root = Root()
    root.net.append(nn.Softmax(1))
    _, found = learned(Source(), seen_in(lambda root: root.net(IMAGES), (IMAGES,), root))
    assert found.notes[0].endswith("(multiclass), without labels.")
    assert "the scores before the final softmax" in found.notes[1]
    assert torch.equal(found.call(IMAGES), root.net[:2](IMAGES))


def test_a_step_that_shows_images_to_nobody_leaves_the_module_itself():
    class Whole(nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    module, batch = Whole(), (IMAGES, LABELS)
    seen = SeenStep(module, batch, None)
    assert Source().found(seen) is None
    samples, found = learned(Source(), seen)
    assert torch.equal(samples.pixels, IMAGES)
    assert found.notes[0].startswith("LibraGradAudit looks at `Whole`: images (3, 4, 4) to 3")
    assert torch.equal(found.call(IMAGES), IMAGES.mean((2, 3)))


def test_a_function_of_the_user_comes_before_the_step():
    source = Source(forward=lambda root, images: root.other(images).sigmoid())
    seen = seen_in(plain_step)
    assert source.found(seen) is None
    assert source.path is None
    _, found = learned(source, seen)
    assert torch.equal(found.call(IMAGES), seen.root.other(IMAGES))
    assert found.call.squashed == "sigmoid"
    assert found.task == "multiclass"


def test_a_path_of_the_user_comes_before_the_step():
    source = Source(forward="other")
    assert source.path == "other"
    root = Root()
    with torch.no_grad(), watched_step(root, (IMAGES,), "other") as watch:
        root.net(IMAGES), root.other(IMAGES * 2)
    seen = SeenStep(root, (IMAGES, LABELS), watch)
    samples, found = learned(source, seen)
    assert torch.equal(samples.pixels, IMAGES * 2)
    assert torch.equal(found.call(IMAGES), root.other(IMAGES))
    # A step that was not watched leaves the submodule itself.
    _, found = learned(source, SeenStep(root, (IMAGES, LABELS), None))
    assert torch.equal(found.call(IMAGES), root.other(IMAGES))


def test_labels_of_the_loss_come_before_those_of_the_batch():
    given = torch.tensor([2, 2, 0])
    seen = seen_in(lambda root: F.cross_entropy(root.net(IMAGES), given))
    assert torch.equal(learned(Source(), seen)[0].labels, given)


def one_hot(labels, smoothed=0.0):
    return F.one_hot(labels, 3).float() * (1 - smoothed) + smoothed / 3


@pytest.mark.parametrize(
    ("given", "held", "is_held"),
    [
        (one_hot(LABELS), LABELS, True),
        (one_hot(LABELS, 0.3), LABELS, True),
        (one_hot(LABELS), LABELS.float(), False),
        (one_hot(LABELS), LABELS > 0, False),
        (one_hot(LABELS.flip(0)), LABELS, False),
        (one_hot(LABELS) + one_hot(LABELS.roll(1)), LABELS, False),
        (one_hot(LABELS), one_hot(LABELS) * 2, False),
    ],
)
def test_classes_are_those_of_the_batch_where_the_loss_was_given_them(given, held, is_held):
    seen = seen_in(
        lambda root: F.binary_cross_entropy_with_logits(root.net(IMAGES), given), (IMAGES, held)
    )
    samples = Source().samples(seen, Source().found(seen))
    assert torch.equal(samples.labels, held if is_held else given)


def test_signs_are_labels_of_yes_and_no():
    signs = one_hot(LABELS) * 2 - 1
    seen = seen_in(lambda root: F.soft_margin_loss(root.net(IMAGES), signs), (IMAGES, signs))
    samples = Source().samples(seen, Source().found(seen))
    assert torch.equal(samples.labels, signs > 0)


def test_labels_of_another_number_are_left_to_the_batch():
    soft = torch.full((1, 3), 1 / 3)

    def step(root):
        F.kl_div(root.net(IMAGES).log_softmax(1), soft, reduction="sum")

    assert torch.equal(learned(Source(), seen_in(step))[0].labels, LABELS)


def test_a_function_of_the_user_unpacks_batches():
    seen = seen_in(plain_step)
    source = Source(unpack=lambda batch: Samples(None, batch[1] * 0, MASKS))
    samples, found = learned(source, seen)
    assert torch.equal(samples.pixels, IMAGES)
    assert not samples.labels.any()
    assert found.warnings == ()
    others = Source(unpack=lambda batch: Samples(IMAGES * 2, LABELS))
    samples, found = learned(others, seen)
    assert torch.equal(samples.pixels, IMAGES * 2)
    (warning,) = found.warnings
    assert "explains the images that `unpack` returns" in warning
    assert learned(Source(unpack=lambda _: Samples(IMAGES[:2], LABELS[:2])), seen)[1].warnings == ()
    with pytest.raises(AuditError, match=r"must return `Samples.* but returned tuple"):
        learned(Source(unpack=lambda batch: batch), seen)


def test_chance_is_warned_of():
    root = Root()
    root.net.append(nn.Dropout(0.5))
    root.net.train()
    seen = seen_in(plain_step, root=root)
    _, found = learned(Source(), seen)
    assert found.random
    (warning,) = found.warnings
    assert "gives the same images other scores each time" in warning
    Source().check(seen, Source().found(seen), found)  # has nothing to compare


def test_another_batch_is_checked():
    seen = seen_in(plain_step)
    _, found = learned(Source(), seen)
    Source().check(seen, Source().found(seen), found)
    Source().check(seen, None, found)
    with torch.no_grad():
        seen.root.net[1].bias += 1.0
    with pytest.raises(AuditError, match="changes from batch to batch"):
        Source().check(seen, Source().found(seen), found)


class Matcher(nn.Module):
    def forward(self, images, texts):
        return images.flatten(1) @ texts.repeat(1, 12)[:, :48].T


def test_pairs_are_explained_without_labels():
    root = Root()
    root.net = Matcher()
    labels = torch.arange(3)
    step = lambda root: F.cross_entropy(root.net(IMAGES, TEXT), labels)  # noqa: E731
    seen = seen_in(step, (IMAGES, labels, TEXT), root)
    samples, found = learned(Source(), seen)
    assert isinstance(found.call.forward, PairReplay)
    assert (found.task, found.outputs) == ("regression", 1)
    assert found.notes[-1].startswith(
        "LibraGradAudit explains the score of each image with its own"
    )
    assert found.notes[0].endswith("to 1 scores (regression), without labels.")
    assert torch.equal(samples.others[0], TEXT)
    assert found.labeled(samples).labels is None
    assert learned(Source(task="binary"), seen)[1].task == "binary"


def test_rows_beside_images_go_with_those_that_the_model_received():
    root = Root()
    step = lambda root: F.cross_entropy(root.several(IMAGES, text=TEXT)["logits"], LABELS)  # noqa: E731
    seen = seen_in(step, (IMAGES, LABELS, TEXT), root)
    found = Source().found(seen)
    assert torch.equal(Source().samples(seen, found).others[0], TEXT)
    few = Source(unpack=lambda _: Samples(IMAGES[:2], LABELS[:2]))
    assert few.samples(seen, found).others == ()


def test_labels_take_the_form_of_the_task():
    _, found = learned(Source(), seen_in(plain_step))
    assert torch.equal(found.labeled(Samples(IMAGES, one_hot(LABELS))).labels, LABELS)
    assert found.labeled(Samples(IMAGES)).labels is None
    with pytest.raises(AuditError, match="found the label 7"):
        found.labeled(Samples(IMAGES, torch.full((3,), 7)))


def test_quantities_are_squashed_as_the_model_squashes_them():
    root, quantities = Root(), torch.rand(3, 3)
    root.net.append(nn.Softplus())
    seen = seen_in(lambda root: F.mse_loss(root.net(IMAGES), quantities), (IMAGES,), root)
    _, found = learned(Source(), seen)
    assert (found.task, found.call.squashed) == ("regression", "softplus")
    assert torch.equal(found.outputs_of(found.call(IMAGES)), root.net(IMAGES))

    classes = Root()
    classes.net.append(nn.Sigmoid())
    seen = seen_in(lambda root: F.binary_cross_entropy(root.net(IMAGES), one_hot(LABELS)),
                   (IMAGES,), classes)  # fmt: skip
    _, found = learned(Source(), seen)
    assert (found.task, found.call.squashed) == ("multilabel", "sigmoid")
    logits = found.call(IMAGES)
    assert found.outputs_of(logits) is logits


def test_images_are_shown_in_the_dtype_of_the_weights():
    root = Root().double()
    source = Source(forward="net")
    samples, found = learned(source, SeenStep(root, (IMAGES, LABELS), None))
    assert found.call(IMAGES.double()).dtype == torch.float64
    assert samples.pixels.dtype == torch.float32
