"""Nested objects: their leaves, the ways to them, and the same with other leaves."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from libragrad_lightning.audit.trees import at, copied, described, leaves, mapped, tensors

Pair = namedtuple("Pair", "image label")


@dataclass
class Record:
    image: torch.Tensor
    late: int = field(init=False, default=3)


class Holder:
    def __init__(self, image):
        self.image, self._hidden, self.name = image, torch.ones(9), "held"


T = torch.zeros(2, 3)
U = torch.ones(2, dtype=torch.int64)
TREES = {
    "mapping": ({"a": T, 5: U, (1, 2): T}, ["a", 5, "(1, 2)"], "a mapping with a: "),
    "ordered": (OrderedDict(b=T, a=U), ["b", "a"], "a mapping with b: "),
    "list": ([T, U, 3], [0, 1, 2], "a list of float32 (2, 3), int64 (2,), int"),
    "tuple": ((T, "text"), [0, 1], "a tuple of float32 (2, 3), str"),
    "named": (Pair(T, U), ["image", "label"], "a Pair with image: "),
    "holder": (Holder(T), ["image", "name"], "a Holder with image: "),
    "simple": (SimpleNamespace(x=T), ["x"], "a SimpleNamespace with x: "),
}


@pytest.mark.parametrize("name", TREES)
def test_every_container_is_read_and_built_again(name):
    tree, keys, words = TREES[name]
    assert [way for way, _ in leaves(tree)] == [(key,) for key in keys]
    assert described(tree).startswith(words)
    for way, leaf in leaves(tree):
        assert at(tree, way) is leaf
    changed = mapped(tree, lambda way, leaf: leaf + 1 if isinstance(leaf, torch.Tensor) else leaf)
    assert type(changed) is type(tree)
    assert [way for way, _ in leaves(changed)] == [way for way, _ in leaves(tree)]
    pairs = zip(tensors(tree), tensors(changed), strict=True)
    assert all(torch.equal(first + 1, second) for (_, first), (_, second) in pairs)
    assert mapped(tree, lambda way, leaf: leaf) is tree


@dataclass(frozen=True, slots=True)
class Slotted:
    image: torch.Tensor


def test_dataclasses_keep_what_is_not_in_their_arguments():
    record = Record(T)
    record.late, record.beside = 5, "more"
    assert [way for way, _ in leaves(record)] == [("image",), ("late",)]
    assert described(record) == "a Record with image: float32 (2, 3), late: int"
    assert mapped(record, lambda way, leaf: leaf) is record
    copy = copied(record)
    assert copy.image is not T
    assert (copy.late, copy.beside) == (5, "more")
    assert copied(Slotted(T)).image.equal(T)


def test_what_a_holder_hides_goes_with_it():
    copy = copied(Holder(T))
    assert copy.image is not T
    assert torch.equal(copy._hidden, torch.ones(9))


@pytest.mark.parametrize(
    "leaf", [3, "text", None, T, Record, torch.nn.ReLU(), SimpleNamespace(x=1)]
)
def test_leaves(leaf):
    assert list(leaves(leaf)) == [((), leaf)]
    assert described(leaf) == ("float32 (2, 3)" if leaf is T else type(leaf).__name__)


def test_ways_through_several_containers():
    tree = {"x": [Pair(T, (U,))]}
    assert [way for way, _ in tensors(tree)] == [("x", 0, "image"), ("x", 0, "label", 0)]
    assert at(tree, ("x", 0, "label", 0)) is U
    for nowhere in (("y",), ("x", 1), ("x", 0, "image", 0)):
        with pytest.raises(KeyError):
            at(tree, nowhere)
    changed = mapped(tree, lambda way, leaf: way)
    assert changed == {"x": [Pair(("x", 0, "image"), (("x", 0, "label", 0),))]}


def test_what_lies_deeper_than_any_batch_is_left_alone():
    tree = T
    for _ in range(12):
        tree = [tree]
    ((way, leaf),) = leaves(tree)
    assert (len(way), isinstance(leaf, list)) == (9, True)
    assert tensors(tree) == []
    knot = []
    knot.append(knot)
    assert [way for way, _ in leaves(knot)] == [(0,) * 9]
    assert [way for way, _ in leaves(mapped(knot, lambda way, leaf: len(way)))] == [(0,) * 9]


def test_copies_share_no_memory_and_no_graph():
    leaf = torch.zeros(2, requires_grad=True)
    tree = {"a": leaf * 1, "b": ["text", leaf]}
    copy = copied(tree)
    assert not copy["a"].requires_grad
    copy["b"][1].add_(1)
    assert not leaf.any()
    assert copy["b"][0] == "text"
