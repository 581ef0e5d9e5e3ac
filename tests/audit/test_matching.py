"""Which functions of a step were given what its modules returned."""

import pytest
import torch
import torch.nn.functional as F
from step_cases import IMAGES, LABELS, Root, watched
from torch import nn

from libragrad_lightning.audit import watched_step
from libragrad_lightning.audit.matching import labeling_use, matches_in


def found(step, batch=(IMAGES, LABELS)):
    _, seen = watched(step, batch)
    return [(m.use.name, m.call.path, m.squashed) for m in matches_in(seen, seen.calls)]


def loss(change):
    """A step whose loss is given what is made of the scores where nobody watches."""

    def step(root):
        scores = root.net(IMAGES)
        with torch._C.DisableTorchFunction():
            given = change(scores.clone())
        F.cross_entropy(given, LABELS)

    return step


@pytest.mark.parametrize(
    ("change", "squashed"),
    [
        (lambda x: x, ()),
        (lambda x: x * (1 + 5e-6), ()),
        (lambda x: x * (1 + 5e-5), None),
        (lambda x: x.softmax(1), ("softmax",)),
        (lambda x: x.log_softmax(1), ("log_softmax",)),
        (lambda x: x.sigmoid(), ("sigmoid",)),
        (lambda x: x.softmax(0), None),
        (lambda x: x.tanh(), None),
        (lambda x: x.double(), ()),
        (lambda x: torch.cat([x, x], 1), None),
    ],
)
def test_scores_are_told_by_their_values_where_their_way_is_not_seen(change, squashed):
    expected = [] if squashed is None else [("cross_entropy", "net", squashed)]
    assert found(loss(change)) == expected


@pytest.mark.parametrize(("shift", "is_same"), [(5e-8, True), (1e-6, False)])
def test_values_near_zero_may_differ_by_rounding(shift, is_same):
    def step(root):
        nn.init.zeros_(root.net[1].weight), nn.init.zeros_(root.net[1].bias)
        loss(lambda x: x + shift)(root)

    assert bool(found(step)) == is_same


def test_scores_that_are_not_numbers_are_told_too():
    def step(root):
        root.net[1].bias[1] = torch.nan
        loss(lambda x: x.clone())(root)

    assert found(step) == [("cross_entropy", "net", ())]


def test_the_only_score_is_squashed_by_a_sigmoid_alone():
    def step(root):
        root.net[1] = nn.Linear(48, 1)
        scores = root.net(IMAGES)
        F.binary_cross_entropy(torch.tensor(scores.sigmoid().tolist()), torch.ones(3, 1))
        F.mse_loss(torch.tensor(scores.softmax(1).tolist()), torch.zeros(3, 1))

    losses = [match for match in found(step) if "_" in match[0]]
    assert losses == [("binary_cross_entropy", "net", ("sigmoid",))]


def test_scores_that_a_step_has_overwritten_are_no_scores():
    def step(root):
        scores = root.net(IMAGES)
        scores.mul_(2.0)
        F.cross_entropy(scores, LABELS)

    assert found(step) == []


def test_what_is_squashed_in_place_of_softmin_is_not_looked_behind():
    assert found(lambda root: F.nll_loss(F.softmin(root.net(IMAGES), 1), LABELS)) == []


def test_every_function_that_squashes_counts_in_its_order():
    def step(root):
        F.nll_loss(root.net(IMAGES).sigmoid().unsqueeze(2).squeeze(2).log_softmax(1), LABELS)

    assert found(step)[-1] == ("nll_loss", "net", ("log_softmax", "sigmoid"))


def test_what_squashed_a_tensor_before_a_module_returned_it_does_not_count():
    class Passing(nn.Module):
        def forward(self, images, scores):
            return scores

    root = Root()
    root.passing = Passing()
    with torch.no_grad(), watched_step(root, (IMAGES, LABELS)) as seen:
        scores = root.passing(IMAGES, torch.randn(3, 4).softmax(1))
        F.nll_loss(scores, LABELS)
    assert [m.squashed for m in matches_in(seen, seen.calls)] == [()]


def test_embeddings_that_are_compared_come_before_other_functions():
    def step(root):
        scores = root.net(IMAGES)
        F.normalize(scores)
        scores.argmax(1)

    assert found(step) == [("argmax", "net", ())]


def test_a_loss_may_be_given_labels_first():
    labels = torch.rand(3, 3)
    _, seen = watched(lambda root: F.mse_loss(labels, root.net(IMAGES).sigmoid()))
    match = matches_in(seen, seen.calls)[-1]
    assert match.use.name == "mse_loss"
    assert match.squashed == ("sigmoid",)
    assert torch.equal(match.use.labels, labels)
    assert torch.equal(match.use.target, match.use.scores)


WHOLE = torch.tensor([1, 1, 0])


def chosen(labels, batch=(IMAGES,)):
    """The labels that count, of losses that were given several."""

    def step(root):
        for given in labels:
            loss = F.mse_loss if given.is_floating_point() else F.cross_entropy
            loss(root.net(IMAGES), given)

    _, seen = watched(step, batch)
    return labeling_use(seen.uses, seen).labels


def test_of_labels_that_no_batch_holds_the_last_whole_ones_count():
    soft = [torch.rand(3, 3) for _ in range(3)]
    assert torch.equal(chosen(soft), soft[2])
    assert torch.equal(chosen([soft[0], WHOLE, soft[1]]), WHOLE)
    assert torch.equal(chosen([WHOLE, LABELS, WHOLE + 1]), WHOLE + 1)


def test_labels_of_the_batch_count_in_any_form():
    soft = torch.rand(3, 3)
    assert torch.equal(chosen([soft, WHOLE], (IMAGES, soft)), soft)
    assert torch.equal(chosen([LABELS, WHOLE], (IMAGES, {"y": LABELS.double()[:, None]})), LABELS)
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(1)])
    assert torch.equal(chosen([LABELS, soft], (IMAGES, nested)), LABELS)
    assert torch.equal(chosen([LABELS, WHOLE], (IMAGES, LABELS[:2], LABELS)), LABELS)
