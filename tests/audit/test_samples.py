"""Samples: what is kept of a batch, and how several become one."""

import torch

from libragrad_lightning.audit import ProbeSet, Samples, Shard
from libragrad_lightning.audit.selection import Named


def test_images_outlive_a_loader_that_fills_one_buffer_again():
    buffer = Samples(
        torch.zeros(2, 3, 4, 4), torch.zeros(2), torch.zeros(2, 4, 4), torch.zeros(2, 4, 4).bool()
    )
    probe = ProbeSet(Named([0, 1, 2, 3]), Shard())
    for batch in (1, 2):
        for tensor in (buffer.images, buffer.labels, buffer.masks, buffer.ignore):
            tensor.fill_(batch)
        probe.add(buffer)
    (group,) = probe.groups()
    assert group.samples.images[:, 0, 0, 0].tolist() == [1, 1, 2, 2]
    assert group.samples.labels.tolist() == [1, 1, 2, 2]
