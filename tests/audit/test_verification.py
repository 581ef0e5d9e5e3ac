"""A forward pass that is found has to give the scores of the step, image by image."""

import pytest
import torch
import torch.nn.functional as F
from step_cases import IMAGES, LABELS, Root, watched
from torch import nn

from libragrad_lightning.audit import AuditError, parameter_owners, watched_step
from libragrad_lightning.audit.replay import CallReplay, PairReplay
from libragrad_lightning.audit.scored_call import scored_call
from libragrad_lightning.audit.verification import check_batch, direct, replayed
from libragrad_lightning.models import is_out_of_memory

TEXTS = torch.randn(3, 48, generator=torch.Generator().manual_seed(1))


def replay(step, root=None, batch=(IMAGES, LABELS), change=lambda root: None):
    """What is replayed of a step, after something of the module has changed."""
    root, seen = watched(step, batch, root)
    found = scored_call(root, seen, None)
    change(root)
    return root, found, replayed(root, found, parameter_owners(root))


def plain_step(root):
    F.cross_entropy(root.net(IMAGES), LABELS)


def test_a_call_that_is_found_is_played_again():
    root, _, again = replay(plain_step)
    assert isinstance(again.call.forward, CallReplay)
    assert (again.random, again.call.squashed, again.call.needs_others) == (False, "", False)
    assert torch.equal(again.call(IMAGES.flip(0)), root.net(IMAGES.flip(0)))


def test_what_the_step_makes_of_the_output_is_played_again_too():
    head = torch.randn(3, 4)

    def step(root):
        F.cross_entropy(root.net(IMAGES) @ head, LABELS)

    root, _, again = replay(step)
    torch.testing.assert_close(again.call(IMAGES[:2]), root.net(IMAGES[:2]) @ head)


def test_a_single_image_is_enough():
    def step(root):
        F.cross_entropy(root.net(IMAGES[:1]), LABELS[:1])

    root, _, again = replay(step, batch=(IMAGES[:1], LABELS[:1]))
    assert torch.equal(again.call(IMAGES), root.net(IMAGES))


@pytest.mark.parametrize("count", [1, 3])
def test_scores_that_depend_on_other_images_are_refused(count):
    def step(root):
        scores = root.net(IMAGES[:count])
        F.cross_entropy(scores - scores.sum(), LABELS[:count])

    with pytest.raises(AuditError, match=rf"scores \({count}, 3\) .* depend on the other images"):
        replay(step, batch=(IMAGES[:count], LABELS[:count]))


def test_a_step_that_needs_as_many_images_is_refused():
    def step(root):
        F.cross_entropy(root.net(IMAGES).mul(2.0).reshape(3, 3), LABELS)

    with pytest.raises(AuditError, match=r"in a way that needs a batch of 3 .RuntimeError"):
        replay(step)


class Exhausted(nn.Module):
    """Has no memory for a single image."""

    def forward(self, images):
        if len(images) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return images.mean((2, 3))


def test_memory_that_runs_out_says_nothing_of_the_model():
    root = Root()
    root.net = Exhausted()
    with pytest.raises(torch.OutOfMemoryError) as caught:
        replay(plain_step, root)
    assert is_out_of_memory(caught.value)


def shifted(amount):
    def change(root):
        with torch.no_grad():
            root.net[1].bias[0] += amount

    return change


def test_scores_that_are_others_now_are_refused():
    with pytest.raises(AuditError, match=r"other scores than .* \(largest difference 0.5\), so"):
        replay(plain_step, change=shifted(0.5))
    with pytest.raises(AuditError, match="largest difference inf"):
        replay(plain_step, change=shifted(torch.nan))
    with pytest.raises(AuditError, match="largest difference inf"):
        replay(plain_step, change=lambda root: root.net.append(nn.Linear(3, 2)))


def test_scores_that_are_no_numbers_may_be_none_again():
    root = Root()
    with torch.no_grad():
        root.net[1].bias[0], root.net[1].bias[1] = torch.nan, torch.inf
    _, _, again = replay(plain_step, root)
    assert again.call(IMAGES)[:, :2].isfinite().tolist() == [[False, False]] * 3


def is_accepted(amount, largest=4.0, dtype=None):
    """Whether scores may differ by so much, where the largest of them is that."""
    root = Root()
    with torch.no_grad():
        root.net[1].weight.zero_()
        root.net[1].bias.copy_(torch.tensor([0.0, 1.0, -largest]))

    def step(root):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "autocast"):
            scores = root.net(IMAGES if dtype != "half" else IMAGES.bfloat16())
        F.cross_entropy(scores, LABELS)

    if dtype == "half":
        root.bfloat16()
    root, seen = watched(step, (IMAGES, LABELS), root)
    found = scored_call(root, seen, None)
    shifted(amount)(root.float())
    try:
        replayed(root, found, parameter_owners(root))
    except AuditError:
        return False
    return True


@pytest.mark.parametrize(("dtype", "near"), [(None, 4e-4), ("half", 0.25), ("autocast", 0.25)])
def test_how_far_scores_may_be_from_those_of_the_step(dtype, near):
    assert is_accepted(0.9 * near, dtype=dtype)
    assert not is_accepted(1.1 * near, dtype=dtype)


def test_other_scores_of_images_of_bytes_have_a_reason_of_their_own():
    class Scaled(nn.Module):
        def forward(self, images):
            scale = 1.0 if images.is_floating_point() else 1 / 255
            return (images * scale).mean((2, 3))

    root, images = Root(), (IMAGES * 40).byte()
    root.net = Scaled()
    with pytest.raises(AuditError, match="is shown uint8 images and gives floating ones of"):
        replay(lambda root: F.cross_entropy(root.net(images), LABELS), root, (images, LABELS))


def test_chance_is_told_from_other_scores():
    root = Root()
    root.net.append(nn.Dropout(0.5))
    root.net.train()
    _, _, again = replay(plain_step, root)
    assert again.random
    assert again.call.needs_others is False


class Matcher(nn.Module):
    """Compares all images with all texts, or each image with its own."""

    def __init__(self, alone):
        super().__init__()
        self.alone = alone

    def forward(self, images, texts):
        compared = images.flatten(1) @ texts.T
        return compared.diagonal()[:, None].expand(-1, 3) * 2 if self.alone else compared


def matched(alone, labels, texts=TEXTS):
    root = Root()
    root.net = Matcher(alone)
    return replay(lambda root: F.cross_entropy(root.net(IMAGES, texts), labels), root)


def test_scores_that_depend_on_what_images_have_beside_them():
    _, _, again = matched(True, LABELS)
    assert again.call.needs_others
    assert [t.shape for t in again.call.others] == [(3, 48)]
    same = TEXTS[:1].expand(3, -1)
    assert not matched(True, LABELS, same)[2].call.needs_others


def test_pairs_are_told_by_labels_that_count_them():
    _, _, again = matched(False, torch.arange(3))
    assert isinstance(again.call.forward, PairReplay)
    assert again.call.needs_others
    expected = (IMAGES.flatten(1) * TEXTS).sum(1, keepdim=True)
    torch.testing.assert_close(again.call.forward(IMAGES, (TEXTS,)), expected)
    assert isinstance(matched(False, torch.eye(3))[2].call.forward, PairReplay)
    with pytest.raises(AuditError, match="depend on the other images of the batch"):
        matched(False, LABELS)


def test_the_function_of_a_user_sees_one_image_to_tell_what_squashes():
    seen = []

    def function(images):
        seen.append(len(images))
        return images.mean((2, 3)).softmax(1)

    call = direct(function, "`forward`", IMAGES)
    assert (call.squashed, seen) == ("softmax", [1])
    assert torch.equal(call(IMAGES), IMAGES.mean((2, 3)))


def test_what_squashes_is_told_by_one_image_and_what_it_has_beside_it():
    class Squashed(Matcher):
        def forward(self, images, texts):
            self.seen = (len(images), len(texts))
            return super().forward(images, texts).softmax(1)

    root = Root()
    root.net = Squashed(True)
    _, _, again = replay(lambda root: F.nll_loss(root.net(IMAGES, TEXTS), LABELS), root)
    assert again.call.squashed == "softmax"
    assert root.net.seen == (1, 1)


def next_batch(step, images, root, change=lambda root: None):
    """Check another batch against what the first has shown."""
    root, _, again = replay(lambda root: step(root, IMAGES), root)
    change(root)
    with torch.no_grad(), watched_step(root, (images, LABELS)) as seen:
        step(root, images)
    with torch.no_grad():
        check_batch(again.call, root, scored_call(root, seen, None))


def test_every_batch_has_to_give_its_scores():
    step = lambda root, images: F.cross_entropy(root.net(images), LABELS)  # noqa: E731
    next_batch(step, IMAGES * 2, Root())
    shifts = iter([0.0, 0.5])

    def shifting(root, images):
        F.cross_entropy(root.net(images) + torch.full((3, 3), next(shifts)), LABELS)

    with pytest.raises(AuditError, match=r"changes from batch to batch \(largest difference 0.5\)"):
        next_batch(shifting, IMAGES * 2, Root())


def test_every_batch_of_pairs_has_to_give_its_scores():
    texts = iter([TEXTS, TEXTS * 2])

    def step(root, images):
        F.cross_entropy(root.net(images, next(texts)), torch.arange(3))

    root = Root()
    root.net = Matcher(False)
    next_batch(step, IMAGES * 2, root)


def test_texts_of_the_step_alone_are_named_where_they_may_be_the_reason():
    texts = iter([TEXTS[:, :3], TEXTS[:, 3:6]])

    def step(root, images):
        F.cross_entropy(root.net(images) @ next(texts).T, LABELS)

    with pytest.raises(AuditError, match="if these are texts that belong to the images, show both"):
        next_batch(step, IMAGES, Root())
