"""The probe set: which images are in it, with one process and with several."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from libragrad_lightning.audit import ProbeSet, Samples, Shard
from libragrad_lightning.audit.probe_set import fingerprint
from libragrad_lightning.audit.selection import First, Named, Stratified


def samples(labels):
    """Images whose pixels are their ids."""
    images = torch.arange(len(labels)).float()[:, None, None, None].expand(-1, 1, 2, 2)
    return Samples(images, torch.tensor(labels))


def collected(selection, labels, rank=0, world_size=1, batch_size=3, total=None):
    probe = ProbeSet(selection, Shard(rank, world_size, total))
    mine = list(range(rank, len(labels), world_size))
    everything = samples(labels)
    for start in range(0, len(mine), batch_size):
        rows = torch.tensor(mine[start : start + batch_size])
        probe.add(Samples(everything.images[rows], everything.labels[rows]))
    return probe


labels_lists = st.lists(st.integers(0, 4), min_size=1, max_size=30)


@given(labels_lists, st.integers(1, 12), st.integers(1, 4))
def test_the_first_images_of_all_processes_are_those_of_one(labels, size, world_size):
    shards = [collected(First(size), labels, rank, world_size) for rank in range(world_size)]
    assert sorted(i for probe in shards for i in probe.ids) == list(range(min(size, len(labels))))
    for probe in shards:
        groups = probe.groups()
        assert [i for group in groups for i in group.ids] == probe.ids
        assert [i for g in groups for i in g.samples.images[:, 0, 0, 0].tolist()] == probe.ids


@given(labels_lists, st.integers(1, 12), st.integers(1, 4))
def test_fewer_images_of_all_processes_are_fewer_of_one(labels, limit, world_size):
    shards = [collected(First(12), labels, rank, world_size) for rank in range(world_size)]
    ids = [i for probe in shards for group in probe.groups(limit) for i in group.ids]
    assert sorted(ids) == list(range(min(limit, len(labels))))


@given(labels_lists, st.integers(1, 12))
def test_a_stratified_probe_takes_turns(labels, size):
    found = collected(Stratified(size), labels).ids
    turns = sorted(range(len(labels)), key=lambda i: (labels[:i].count(labels[i]), i))
    assert found == turns[:size]
    counts = np.bincount([labels[i] for i in found], minlength=5)
    available = np.bincount(labels, minlength=5)
    # No class has two more than one that could still give an image.
    assert all(counts.max() <= counts[c] + 1 for c in range(5) if counts[c] < available[c])


@given(labels_lists, st.integers(1, 12), st.integers(1, 4))
def test_the_shares_of_a_stratified_probe_add_up(labels, size, world_size):
    shards = [collected(Stratified(size), labels, rank, world_size) for rank in range(world_size)]
    ids = [i for probe in shards for i in probe.ids]
    assert len(ids) == len(set(ids)) <= size
    for rank, probe in enumerate(shards):
        assert len(probe.ids) <= len(range(rank, size, world_size))


@given(st.lists(st.integers(0, 25), unique=True, min_size=1, max_size=8))
def test_named_images_keep_their_order(ids):
    probe = collected(Named(ids), [0] * 20)
    assert probe.ids == [i for i in ids if i < 20]
    assert probe.is_complete == (max(ids) < 20)


def test_images_that_even_out_shards_are_left_out():
    labels = [0] * 24
    assert collected(First(24), labels, 1, 2, total=23).ids == list(range(1, 23, 2))


def test_a_probe_is_complete_when_nothing_wanted_can_come():
    probe = ProbeSet(First(4), Shard(1, 2))
    probe.add(samples([0]))
    assert not probe.is_complete
    probe.add(samples([0]))
    assert probe.is_complete
    stratified = collected(Stratified(2), [0, 1, 2])
    assert not stratified.is_complete
    stratified.fix()
    assert stratified.is_complete


def test_images_are_grouped_by_their_size():
    probe = ProbeSet(First(6), Shard())
    for i, side in enumerate((2, 4, 2, 2, 4)):
        probe.add(Samples(torch.full((1, 3, side, 2), float(i))))
    first, second = probe.groups()
    assert (first.ids, second.ids) == ((0, 2, 3), (1, 4)) == (first.numbers, second.numbers)
    assert second.samples.images[:, 0, 0, 0].tolist() == [1, 4]


def test_fingerprints_tell_images_apart():
    images = torch.randn(3, 3, 4, 4)
    prints = [fingerprint(image) for image in images]
    assert len(set(prints)) == 3
    assert [fingerprint(image) for image in images.flip(0)] == prints[::-1]
    assert [fingerprint(image) for image in images.bfloat16()] != prints
    images[0, 0, 0, 0] += 1e-6
    assert fingerprint(images[0]) not in prints


@given(labels_lists, st.integers(1, 12), st.integers(1, 3), st.integers(1, 4))
def test_images_that_are_taken_as_they_come_are_those_that_would_be_kept(labels, size, n, count):
    kept = [collected(First(size), labels, rank, n) for rank in range(n)]
    for rank, probe in enumerate(kept):
        taken = ProbeSet(First(size), Shard(rank, n))
        mine, everything, groups = range(rank, len(labels), n), samples(labels), []
        for i in mine:
            taken.add(Samples(everything.images[i : i + 1], everything.labels[i : i + 1]))
            ready = taken.has(count)
            came = taken.taken(count)
            assert [len(g.ids) for g in came] == ([count] if ready else [])
            groups += came
        groups += taken.taken(1)
        assert taken.ids == []
        expected = probe.groups()
        for name in ("ids", "numbers"):
            found = [i for g in groups for i in getattr(g, name)]
            assert found == [i for g in expected for i in getattr(g, name)]
        pixels = [g.samples.images[:, 0, 0, 0].tolist() for g in groups]
        assert [i for some in pixels for i in some] == probe.ids


def test_images_of_several_sizes_are_taken_size_by_size():
    probe = ProbeSet(First(9), Shard())
    for side in (2, 3, 2, 3, 3, 2):
        probe.add(Samples(torch.zeros(1, 1, side, side), torch.tensor([0])))
    assert probe.comes_in_order
    assert not ProbeSet(Stratified(9), Shard()).comes_in_order
    assert not ProbeSet(Named([1]), Shard()).comes_in_order
    assert [group.numbers for group in probe.taken(2)] == [(0, 2), (1, 3)]
    assert not probe.has(2)
    assert [group.numbers for group in probe.taken(1)] == [(4,), (5,)]
    assert probe.taken(1) == []
