"""A call is played again with other images, and scores are found in what it returns."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from libragrad_lightning.audit import AuditError
from libragrad_lightning.audit.replay import CallReplay, DirectCall, ModelCall, PairReplay

IMAGES = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def scores(images):
    return images.flatten(1)[:, :5]


@pytest.mark.parametrize(
    ("squashed", "squash"),
    [("", lambda x: x), ("softmax", lambda x: x.softmax(1)), ("sigmoid", torch.sigmoid)],
)
def test_what_is_explained_are_the_scores_before_they_are_squashed(squashed, squash):
    call = ModelCall(lambda images, others: squash(scores(images)), squashed)
    assert torch.equal(call(IMAGES), scores(IMAGES))
    kept = ModelCall(lambda images, others: squash(scores(images)))
    assert torch.equal(kept(IMAGES), squash(scores(IMAGES)))


@pytest.mark.parametrize("squashed", ["", "sigmoid"])
@pytest.mark.parametrize(
    ("form", "shape"), [(lambda x: x[:, 0], (3, 1)), (lambda x: x[:, :, None, None], (3, 5))]
)
def test_scores_have_two_axes(form, shape, squashed):
    squash = torch.sigmoid if squashed else torch.clone
    call = ModelCall(lambda images, others: squash(form(scores(images))), squashed)
    assert call(IMAGES).shape == shape
    assert torch.equal(call(IMAGES), form(scores(IMAGES)).reshape(shape))


def test_what_images_have_beside_them_is_that_of_the_first():
    call = ModelCall(lambda images, others: images.mean((2, 3)) + others[0], "", (), True)
    beside = call.beside((torch.tensor([[1.0], [2.0]]),))
    assert beside.others[0].tolist() == [[1.0]]
    assert torch.equal(beside(IMAGES), IMAGES.mean((2, 3)) + 1.0)
    assert beside.needs_others


class Several(nn.Module):
    """Remembers what it was given."""

    def forward(self, *args, **kwargs):
        self.given = (args, kwargs)
        return {"scores": [None, scores(args[1])]}


def replay(arguments, ways=()):
    return CallReplay(Several(), arguments, (0, 1), ways, ("scores", 1))


def test_images_and_rows_are_exchanged_and_all_else_stays():
    rows, fixed = torch.zeros(2, 4), torch.arange(6)
    call = replay((("first", None), {"text": None, "table": fixed}), ((1, "text"),))
    rows = torch.arange(12.0).view(3, 4)
    assert torch.equal(call(IMAGES, (rows,)), scores(IMAGES))
    (first, images), kwargs = call.module.given
    assert (first, images is IMAGES) == ("first", True)
    assert kwargs["text"] is rows
    assert kwargs["table"] is fixed
    call(IMAGES, (rows[1:],))
    assert call.module.given[1]["text"].tolist() == [rows[1].tolist()] * 3


def test_arguments_of_half_precision_become_those_of_the_images():
    half = torch.ones(2, dtype=torch.bfloat16)
    call = replay(((half, None), {"rows": None, "whole": torch.ones(2).double()}), ((1, "rows"),))
    call(IMAGES, (torch.ones(3, 1, dtype=torch.float16),))
    (first, _), kwargs = call.module.given
    assert (first.dtype, kwargs["rows"].dtype) == (torch.float32, torch.float32)
    assert kwargs["whole"].dtype == torch.float64


def test_pairs_are_on_the_diagonal():
    pairs = PairReplay(lambda images, others: images.flatten(1) @ others[0].T)
    rows = torch.randn(3, 48)
    expected = (IMAGES.flatten(1) * rows).sum(1, keepdim=True)
    torch.testing.assert_close(pairs(IMAGES, (rows,)), expected)


@dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor


ONE, TWO, DEEP = torch.zeros(3), torch.ones(3, 5), torch.ones(3, 7, 5)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (TWO, TWO),
        (ONE, ONE),
        ((ONE, TWO), TWO),
        ([TWO, DEEP], TWO),
        ({"a": ONE, "b": DEEP}, ONE),
        ({"logits": TWO, "features": TWO * 2}, TWO),
        (Output(TWO, TWO * 2), TWO),
        ((TWO, TWO.long()), TWO),
        ({"logits": ONE, "features": TWO}, TWO),
    ],
)
def test_scores_are_found_in_what_a_function_returns(output, expected):
    assert DirectCall(lambda images: output, "it")(IMAGES, ()) is expected


@pytest.mark.parametrize(
    "output",
    [
        (TWO, TWO * 2),
        {"x": {"logits": TWO}, "y": {"logits": TWO}},
        DEEP,
        None,
        TWO.long(),
        {"a": DEEP},
    ],
)
def test_what_holds_no_scores_or_several_is_refused(output):
    with pytest.raises(AuditError, match=r"it must return scores \[B, C\] but returned"):
        DirectCall(lambda images: output, "it")(IMAGES, ())


def test_a_function_that_needs_more_than_images_is_refused():
    with pytest.raises(AuditError, match=r"it cannot be called with images alone \(TypeError: "):
        DirectCall(lambda images, text: images, "it")(IMAGES, ())
    with pytest.raises(ZeroDivisionError):  # is a fault of its own
        DirectCall(lambda images: 1 / 0, "it")(IMAGES, ())
