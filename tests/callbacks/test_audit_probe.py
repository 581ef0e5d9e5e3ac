"""The probe set: which images are in it, with one process and with several."""

import numpy as np
import pytest
import torch
from audit_cases import Classifier, data, loader, quick_audit, trainer
from hypothesis import given
from hypothesis import strategies as st
from libragrad_lightning.callbacks.probe import Probe, Shard, fingerprints
from libragrad_lightning.callbacks.samples import Samples
from libragrad_lightning.callbacks.selection import First, Named, Stratified


def samples(labels):
    """Images whose pixels are their ids."""
    images = torch.arange(len(labels)).float()[:, None, None, None].expand(-1, 1, 2, 2)
    return Samples(images, torch.tensor(labels))


def collected(selection, labels, rank=0, world_size=1, batch_size=3, total=None):
    probe = Probe(selection, Shard(rank, world_size, total))
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
        kept = [] if probe.samples is None else probe.samples.images[:, 0, 0, 0].tolist()
        assert kept == probe.ids


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
    assert all(len(probe.ids) <= probe.share(size) for probe in shards)
    assert sum(probe.share(size) for probe in shards) == size


@given(st.lists(st.integers(0, 25), unique=True, min_size=1, max_size=8))
def test_named_images_keep_their_order(ids):
    probe = collected(Named(ids), [0] * 20)
    assert probe.ids == [i for i in ids if i < 20]
    assert probe.is_complete == (max(ids) < 20)


def test_images_that_even_out_shards_are_left_out():
    labels = [0] * 24
    assert collected(First(24), labels, 1, 2, total=23).ids == list(range(1, 23, 2))


def test_a_probe_is_complete_when_nothing_wanted_can_come():
    probe = Probe(First(4), Shard(1, 2))
    probe.add(samples([0]))
    assert not probe.is_complete
    probe.add(samples([0]))
    assert probe.is_complete
    stratified = collected(Stratified(2), [0, 1, 2])
    assert not stratified.is_complete
    stratified.fix()
    assert stratified.is_complete


def test_fingerprints_tell_images_apart():
    images = torch.randn(3, 3, 4, 4)
    assert len(set(fingerprints(images))) == 3
    assert fingerprints(images.flip(0)) == fingerprints(images)[::-1]
    assert fingerprints(images.bfloat16()) != fingerprints(images)
    images[0, 0, 0, 0] += 1e-6
    assert fingerprints(images)[0] != fingerprints(images + 0.0)[1]


@pytest.mark.parametrize(
    ("probe", "expected"), [("first", [0, 1, 2, 3]), ([9, 2], [9, 2]), ("stratified", None)]
)
def test_the_audit_explains_the_images_that_are_asked_for(tmp_path, probe, expected):
    callback = quick_audit(probe=probe, num_images=0)
    run = trainer(tmp_path, [callback], logger=False, max_epochs=1, enable_checkpointing=False)
    run.fit(Classifier(), loader(count=16), loader(count=16))
    found = callback.auditor.probe.ids
    images, labels, _ = data(16).tensors
    if expected is None:
        assert {int(label) for label in labels[found]} == {int(label) for label in labels}
    else:
        assert found == expected
    assert torch.equal(callback.auditor.probe.samples.images, images[found])


def test_places_that_the_loader_does_not_have(tmp_path):
    callback = quick_audit(probe=[3, 99], num_images=0)
    run = trainer(tmp_path, [callback], logger=False, max_epochs=1, enable_checkpointing=False)
    with pytest.warns(UserWarning, match="found 1 of the 2 images that `probe` names"):
        run.fit(Classifier(), loader(count=16), loader(count=16))
    assert callback.history[0].samples == 1
