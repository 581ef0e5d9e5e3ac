"""Tensors are seen, and exchanged, where they enter or leave modules, call by call."""

from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from libragrad_lightning.models import Axes, Level, Point, UnreadableModelError, logits_of
from libragrad_lightning.models.levels import features_at, seen_at

IMAGES = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))


class Returning(nn.Module):
    """Returns what it is given, in a container."""

    def __init__(self, make):
        super().__init__()
        self.make, self.weight = make, nn.Parameter(torch.ones(()))

    def forward(self, first, second=None, *, named=None):
        return self.make(first * self.weight)


def exchanged(make, argument=None, **kwargs):
    """What a module returns if there is another tensor at a point of it."""
    module = Returning(make)
    with seen_at(Point(module, argument), lambda tensor: tensor * 0.0):
        found = module(IMAGES, **kwargs)
    assert torch.equal(leaf_of(module(IMAGES, **kwargs)), IMAGES)  # nothing stays
    return found


def leaf_of(output):
    if isinstance(output, dict):
        return output["x"]
    return output[0] if isinstance(output, list | tuple) else output


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: (x, "more"),
        lambda x: [x, x.shape],
        lambda x: {"x": x, "y": 3},
        lambda x: OrderedDict(x=x),
    ],
)
def test_what_a_module_returns_is_exchanged_in_its_container(make):
    found, same = exchanged(make), make(IMAGES)
    assert type(found) is type(same)
    assert not leaf_of(found).any()
    if isinstance(found, dict):
        assert list(found) == list(same)
    assert not leaf_of(exchanged(make, 0)).any()


def test_arguments_are_told_by_their_place_or_name():
    class Sum(nn.Module):
        def forward(self, first, second, *, named):
            return torch.stack([first, second, named])

    module, given = Sum(), (torch.ones(1), torch.ones(1))
    for number, argument in enumerate((0, 1, "named")):
        with seen_at(Point(module, argument), lambda tensor: tensor * 5):
            found = module(*given, named=torch.ones(1)).flatten().tolist()
        assert found == [5.0 if i == number else 1.0 for i in range(3)]


@pytest.mark.parametrize("argument", [0, None])
def test_calls_are_told_apart(argument):
    module, seen = nn.Identity(), []
    with seen_at(Point(module, argument, 1), seen.append):
        for number in range(3):
            module(torch.tensor(float(number), requires_grad=True))
    assert seen == [torch.tensor(1.0)]


class Narrow(nn.Module):
    """Has room for one image, and goes on after the last point."""

    def __init__(self, room):
        super().__init__()
        self.first, self.second, self.room = nn.Identity(), nn.Identity(), room
        self.went_on = False

    def forward(self, images):
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        x = self.first(images.flatten(2))
        self.second(x.transpose(0, 1)).mul_(2.0)
        self.went_on = True


@pytest.mark.parametrize("room", [4, 1])
def test_features_are_those_of_all_images_where_memory_holds_one(room):
    model = Narrow(room)
    levels = [
        Level((Point(model.first),), (Axes.TOKENS,)),
        Level((Point(model.second),), (Axes.TOKENS_FIRST,)),
    ]
    (first,), (second,) = features_at(model, levels, IMAGES)
    assert torch.equal(first, IMAGES.flatten(2))
    assert torch.equal(second, IMAGES.flatten(2).transpose(0, 1))
    assert not model.went_on
    with pytest.raises(torch.OutOfMemoryError):
        features_at(Narrow(0), levels, IMAGES)


@dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor


TWO = torch.ones(3, 5)


@pytest.mark.parametrize(
    "output",
    [
        TWO,
        {"logits": TWO, "features": TWO * 2},
        {"features": torch.ones(3, 7, 5), "scores": TWO},
        (TWO, torch.ones(3)),
        [torch.ones(3, 5, 1), TWO, "text"],
        Output(TWO, TWO * 2),
    ],
)
def test_logits_are_found_in_what_a_model_returns(output):
    assert logits_of(output) is TWO


def test_one_score_of_each_image_is_a_column():
    assert logits_of(torch.arange(3.0)).tolist() == [[0.0], [1.0], [2.0]]


@pytest.mark.parametrize(
    ("output", "seen"),
    [
        ((TWO, TWO), r"\(3, 5\), \(3, 5\)"),
        (torch.ones(3, 5, 1), r"\(3, 5, 1\)"),
        ("text", "str"),
        (None, "NoneType"),
        ({}, "dict"),
        ({"logits": torch.ones(3, 7, 5)}, r"\(3, 7, 5\)"),
    ],
)
def test_what_holds_no_logits_is_refused(output, seen):
    with pytest.raises(UnreadableModelError, match=rf"must return logits .* but returned {seen};"):
        logits_of(output)
