"""Which call of a step made the scores, told by what the step does with what modules return."""

import pytest
import torch
import torch.nn.functional as F
from step_cases import IMAGES, LABELS, TEXT, Root, watched
from torch import nn

from libragrad_lightning.audit import AuditError, watched_step
from libragrad_lightning.audit.matching import labeling_use, matches_in, rows_of_other_labels
from libragrad_lightning.audit.scored_call import scored_call
from libragrad_lightning.audit.watch import image_channels, images_in, may_be_scores


def scored(step, path=None, **kwargs):
    root, found = watched(step, **kwargs)
    return root, scored_call(root, found, path)


def loss_of(function, *labels, squash=lambda x: x):
    return lambda root: function(squash(root.net(IMAGES)), *(labels or (LABELS,)))


@pytest.mark.parametrize(
    ("step", "names"),
    [
        (loss_of(F.cross_entropy), ("cross_entropy",)),
        (loss_of(F.nll_loss, squash=lambda x: x.log_softmax(1)), ("log_softmax", "nll_loss")),
        (
            loss_of(F.binary_cross_entropy, torch.rand(3, 3), squash=torch.sigmoid),
            ("sigmoid", "binary_cross_entropy"),
        ),
        (lambda root: F.mse_loss(TEXT[:, :3], root.net(IMAGES)), ("mse_loss",)),
    ],
    ids=["plain", "log_softmax", "sigmoid", "labels first"],
)
def test_a_loss_tells_the_scores_and_their_labels(step, names):
    root, found = scored(step)
    assert (found.call.path, found.call.module, found.output_way) == ("net", root.net, ())
    assert found.functions[: len(names)] == names
    assert torch.equal(found.scores, root.net(IMAGES))
    assert torch.equal(found.images, IMAGES)
    assert len(found.labels) == 3
    assert found.name == "`net`"


def test_labels_that_come_first_are_the_labels():
    root, found = scored(lambda root: F.mse_loss(TEXT[:, :3], root.net(IMAGES)))
    assert torch.equal(found.labels, TEXT[:, :3])
    assert torch.equal(found.scores, root.net(IMAGES))


def test_functions_of_embeddings_before_the_loss_do_not_count():
    def step(root):
        scores = root.net(IMAGES)
        F.normalize(scores)
        F.cross_entropy(scores, LABELS)
        scores.argmax(1)

    root, found = watched(step)
    matches = matches_in(found, found.calls)
    assert [(m.use.name, m.call.path, m.way, m.squashed) for m in matches] == [
        ("cross_entropy", "net", (), ()),
        ("argmax", "net", (), ()),
    ]
    assert scored_call(root, found, None).functions == ("cross_entropy", "argmax")


def test_calls_with_other_images_than_those_of_the_batch_do_not_count():
    def step(root):
        root.other(torch.randn(6, 3, 4, 4)).softmax(1)
        F.cross_entropy(root.net(IMAGES), LABELS)

    assert scored(step)[1].call.path == "net"

    def reading(root):
        root.other(torch.randn(6, 3, 4, 4)).argmax(1), root.net(IMAGES).argmax(1)

    assert scored(reading)[1].call.path == "net"
    for alone in (torch.randn(3, 48, 1, 1), torch.randn(3, 1, 4, 12)):
        _, found = scored(loss_of(F.cross_entropy), batch=(alone, LABELS))
        assert found.call.path == "net"  # none has them, so that all count


@pytest.mark.parametrize("nested", [False, True])
def test_nested_tensors_of_a_batch_are_no_images(nested):
    tokens = torch.nested.nested_tensor([torch.zeros(3, 4, 4), torch.zeros(3, 2, 2)])
    batch = (IMAGES, LABELS, tokens) if nested else (IMAGES, LABELS)
    assert scored(loss_of(F.cross_entropy), batch=batch)[1].call.path == "net"
    assert image_channels(batch) == (1, 3, 4)


def test_what_agrees_with_a_reading_is_chosen_of_two_losses():
    def step(root):
        F.cross_entropy(root.net(IMAGES), LABELS)
        scores = root.other(IMAGES)
        F.cross_entropy(scores, LABELS)
        scores.argmax(1)

    assert scored(step)[1].call.path == "other"


def test_two_losses_without_more_are_ambiguous():
    def step(root):
        F.cross_entropy(root.net(IMAGES), LABELS)
        F.cross_entropy(root.other(IMAGES), LABELS)

    with pytest.raises(AuditError, match=r"2 tensors that may be the scores \(net, other\)"):
        scored(step)
    assert scored(step, path="other")[1].call.path == "other"


def test_two_outputs_of_a_module_with_a_loss_each_are_ambiguous():
    def step(root):
        found = root.several(IMAGES)
        F.cross_entropy(found["logits"], LABELS)
        F.cross_entropy(found["aux"], LABELS)

    with pytest.raises(AuditError, match=r"\(several\['logits'\], several\['aux'\]\)"):
        scored(step)


def test_a_module_that_is_shown_two_stacks_of_images():
    _, found = watched(lambda root: root.several(IMAGES, text=torch.zeros(1, 3, 4, 4)))
    (call,) = found.calls
    assert [len(images) for _, images in call.images] == [3, 1]
    assert set(call.scores) == {("features",), ("logits",), ("aux",), ("odd",)}


def test_a_reading_tells_the_scores_without_a_loss():
    def step(root):
        root.other(IMAGES)
        root.net(IMAGES).argmax(1)

    _, found = scored(step)
    assert (found.call.path, found.labels, found.functions) == ("net", None, ("argmax",))


def test_without_any_use_logits_are_told_by_their_name():
    _, found = scored(lambda root: root.several(IMAGES))
    assert (found.call.path, found.output_way) == ("several", ("logits",))
    with pytest.raises(AuditError, match="2 tensors that may be the scores"):
        scored(lambda root: (root.net(IMAGES), root.other(IMAGES)))
    _, found = scored(lambda root: root.net(IMAGES))
    assert (found.call.path, found.output_way, found.functions) == ("net", (), ())


def test_other_arguments_with_a_row_for_every_image_are_told():
    def step(root):
        F.cross_entropy(root.several(IMAGES, text=TEXT)["logits"], LABELS)

    _, found = scored(step)
    assert found.images_way == (0, 0)
    assert found.row_ways == ((1, "text"),)


def test_labels_of_other_numbers_are_refused():
    def step(root):
        scores = root.net(IMAGES)
        scores.argmax(1)
        F.mse_loss(torch.zeros(2), torch.ones(2))

    with pytest.raises(AuditError, match="net is shown 3 images for 2 labels"):
        scored(step)


def test_a_step_without_images_for_its_modules():
    assert scored(lambda root: None)[1] is None
    assert scored(lambda root: F.relu(IMAGES))[1] is None
    with pytest.raises(AuditError, match="step of Root computes its scores without showing"):
        scored(lambda root: F.cross_entropy(IMAGES.mean((2, 3)), LABELS))
    assert scored(lambda root: F.cross_entropy(IMAGES.mean((2, 3)), LABELS), path="net")[1] is None


def test_embeddings_are_refused():
    def step(root):
        F.normalize(root.net(IMAGES)) @ torch.randn(3, 7)

    with pytest.raises(AuditError, match=r"net returns embeddings \(3, 3\)"):
        scored(step)


def test_a_module_without_scores():
    class Map(nn.Module):
        def forward(self, images):
            return images * 2

    root = Root()
    root.net = Map()
    with torch.no_grad(), watched_step(root, (IMAGES, LABELS)) as found:
        root.net(IMAGES)
    with pytest.raises(AuditError, match=r"net is shown the images and returns no scores \[B, C\]"):
        scored_call(root, found, None)


def test_without_labels_a_reading_of_classes_counts_more_than_another():
    def step(root):
        root.other(IMAGES).max()
        root.net(IMAGES).argmax(1)

    assert scored(step)[1].call.path == "net"


def test_quantities_that_are_made_of_probabilities_do_not_make_them_the_scores():
    values = torch.arange(3.0)

    def step(root):
        root.other(IMAGES)
        expected = root.net(IMAGES).softmax(1) @ values
        F.mse_loss(expected, torch.zeros(3))

    with pytest.raises(AuditError, match="come from 2 calls that are shown images"):
        scored(step)


def test_one_row_of_labels_for_all_images_is_no_other_number_of_labels():
    soft = torch.full((1, 3), 1 / 3)

    def step(root):
        F.kl_div(root.net(IMAGES).log_softmax(1), soft, reduction="sum")

    _, found = scored(step)
    assert found.labels.shape == (1, 3)
    assert found.functions == ("log_softmax", "kl_div", "log_softmax")


def test_of_a_named_module_that_is_called_twice_the_first_counts():
    def step(root):
        root.net(IMAGES), root.net(IMAGES * 2)

    _, found = scored(step, path="net")
    assert torch.equal(found.images, IMAGES)


def test_a_head_outside_of_modules_makes_scores():
    head = torch.randn(3, 7)

    def step(root):
        F.cross_entropy((root.net(IMAGES) @ head).log_softmax(1), LABELS)

    root, found = scored(step)
    assert (found.call.path, found.output_way, found.made is not None) == ("net", None, True)
    assert [o.function.__name__ for o in found.operations] == ["matmul"]
    assert torch.equal(found.scores, root.net(IMAGES) @ head)
    assert found.functions == ("log_softmax", "cross_entropy", "cross_entropy")
    assert torch.equal(found.labels, LABELS)


def test_the_images_among_several_stacks():
    class Two(nn.Module):
        def forward(self, first, image=None):
            return first.mean((2, 3))

    def found(*args, **kwargs):
        root = Root()
        root.two = Two()
        with torch.no_grad(), watched_step(root, (IMAGES, LABELS)) as seen:
            F.cross_entropy(root.two(*args, **kwargs), LABELS)
        return scored_call(root, seen, None).images_way

    assert found(IMAGES) == (0, 0)
    assert found(IMAGES, image=IMAGES[:, :1]) == (1, "image")
    assert found(IMAGES, IMAGES[:, :1]) == (0, 0)
    with pytest.raises(AuditError, match=r"two is shown 2 tensors that may be the images"):
        found(IMAGES, IMAGES)


def test_losses_whose_labels_the_batch_holds_come_first():
    def step(root):
        scores = root.net(IMAGES)
        F.cross_entropy(scores, torch.zeros(3, dtype=torch.int64))
        F.cross_entropy(scores, LABELS)

    _, found = watched(step)
    assert torch.equal(labeling_use(found.uses, found).labels, LABELS)
    _, found = watched(step, batch=(IMAGES,))
    assert torch.equal(labeling_use(found.uses, found).labels, LABELS)  # the last
    assert labeling_use([], found) is None
    assert rows_of_other_labels(found, 3) == 0
    assert rows_of_other_labels(found, 4) == 3


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((3,), torch.float32, True),
        ((3, 7), torch.bfloat16, True),
        ((3, 7, 1, 1), torch.float32, True),
        ((3, 7, 1, 2), torch.float32, False),
        ((2, 7), torch.float32, False),
        ((3, 7), torch.int64, False),
        ((), torch.float32, False),
    ],
)
def test_forms_of_scores(shape, dtype, expected):
    assert may_be_scores(torch.zeros(shape, dtype=dtype), 3) is expected


def test_what_may_be_images():
    def shown(tensor, **kwargs):
        return [way for way, _ in images_in({"x": [tensor]}, **kwargs)]

    assert shown(IMAGES) == shown(IMAGES.byte()) == [("x", 0)]
    assert shown(torch.zeros(2, 5, 4, 4)) == []
    assert shown(torch.zeros(2, 5, 4, 4), channels=(5,)) == [("x", 0)]
    for other in (IMAGES[0], IMAGES.bool(), IMAGES.long(), IMAGES.to(torch.complex64)):
        assert shown(other) == []
    assert image_channels((torch.zeros(2, 5, 8, 8), torch.zeros(2, 8, 9, 7))) == (1, 3, 4, 5, 7)
