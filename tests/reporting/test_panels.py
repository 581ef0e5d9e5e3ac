"""Names of classes in any form, and which images are drawn."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch

from libragrad_lightning.audit import AuditError
from libragrad_lightning.reporting import PanelDrawer, Pictures
from libragrad_lightning.reporting.panels import class_list


@pytest.mark.parametrize(
    "names",
    [
        ["ant", "bee"],
        ("ant", "bee"),
        {0: "ant", 1: "bee"},
        {"1": "bee", "0": "ant"},
        {"bee": 1, "ant": 0},
        OrderedDict(ant=0, bee=1),
    ],
)
def test_names_in_any_form_are_a_list(names):
    assert class_list(names) == ["ant", "bee"]


def test_numbers_stand_for_names_that_are_missing():
    assert class_list({3: "dog", 1: "bee"}) == ["0", "bee", "2", "dog"]
    assert class_list({}) == []
    assert class_list([7, 8]) == ["7", "8"]
    assert class_list(None) is None


@pytest.mark.parametrize("names", ["names.txt", 3, {"ant", "bee"}])
def test_other_names_are_refused(names):
    for refused in (lambda: class_list(names), Pictures(class_names=names).check):
        with pytest.raises(AuditError, match="`class_names` to be a list of names"):
            refused()


@pytest.mark.parametrize(("size", "works"), [(31, False), (32, True)])
def test_pictures_have_a_least_size(size, works):
    assert Pictures().size == 192  # two of them are as wide as loggers show a picture
    if works:
        Pictures(size).check()
    else:
        with pytest.raises(AuditError, match="`size` of at least 32 but got 31"):
            Pictures(size).check()


def test_a_panel_has_at_least_one_target():
    with pytest.raises(AuditError, match="`targets` of at least 1 but got 0"):
        Pictures(targets=0).check()


def test_owners_say_what_arguments_do_not():
    data = SimpleNamespace(image_mean=(0.5,), image_std=torch.tensor([[0.25]]), class_names=["a"])
    module = SimpleNamespace(class_names={0: "b"}, image_mean=(9.0,))
    filled = Pictures().filled([data, module])
    assert (filled.mean, filled.std, filled.class_names) == ((0.5,), (0.25,), ["a"])
    filled = Pictures(48, std=(1.0,), class_names=["c"]).filled([data, module])
    assert filled == Pictures(48, None, (1.0,), ["c"])
    filled = Pictures().filled([None, module])
    assert (filled.mean, filled.std, filled.class_names) == (None, None, ["b"])


def test_the_first_images_are_drawn_once_and_named_by_their_places(monkeypatch):
    drawer = PanelDrawer(Pictures(), 3)

    def panel(self, chunk, row, *more):
        return SimpleNamespace(tag=f"image_{chunk.numbers[row]:03d}/ant", picture=(chunk.name, row))

    monkeypatch.setattr(PanelDrawer, "_panel", panel)
    for name, numbers in (("a", (2, 5)), ("b", (0, 2, 3))):
        drawer.draw(SimpleNamespace(name=name, numbers=numbers))
    assert list(drawer.named("audit").items()) == [
        ("audit/image_000/ant", ("b", 0)),
        ("audit/image_002/ant", ("a", 0)),
    ]
