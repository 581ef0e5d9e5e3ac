"""What is explained of the images of a probe set, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from libragrad_lightning.attribution import Task
from libragrad_lightning.audit.config import AuditConfig
from libragrad_lightning.audit.keys import Key
from libragrad_lightning.audit.probe_set import ProbeGroup
from libragrad_lightning.audit.samples import NO_LABEL, Samples


@dataclass(frozen=True)
class Truth:
    """Labels to compare the scores with, every image once.

    Attributes:
        rows: Which rows to compare, int64.
        labels: Their labels, or None.
    """

    rows: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class ExplainedRows:
    """The images of one size, each as often as something in it is explained.

    Attributes:
        keys: What they are remembered by.
        numbers: Their places in the probe set.
        samples: The images, with the labels that are explained.
        labels: All labels of each image, or None.
    """

    keys: tuple[Key, ...]
    numbers: tuple[int, ...]
    samples: Samples
    labels: Tensor | None

    def truth(self, start: int, stop: int) -> Truth:
        """Return what to compare the scores of some rows with."""
        part = self.numbers[start:stop]
        rows = [i for i, n in enumerate(part) if start + i == 0 or self.numbers[start + i - 1] != n]
        index = torch.tensor(rows, dtype=torch.int64)
        return Truth(index, None if self.labels is None else self.labels[start:stop][index])


def explained_rows(group: ProbeGroup, config: AuditConfig, task: Task) -> ExplainedRows:
    """Return what is explained of images: with ``target="label"`` every label that they have."""
    labels = group.samples.labels
    if config.target != "label" or labels is None or task == "regression":
        keys = tuple((i, -1) for i in group.ids)
        return ExplainedRows(keys, group.numbers, group.samples, labels)
    if task == "multilabel":
        rows, chosen = (found.tolist() for found in labels.nonzero(as_tuple=True))
        keys = tuple((group.ids[row], label) for row, label in zip(rows, chosen, strict=True))
    else:
        rows = (labels != NO_LABEL).nonzero()[:, 0].tolist()
        keys = tuple((group.ids[row], -1) for row in rows)
    samples = group.samples[rows]
    every = samples.labels
    if task == "multilabel":
        samples = replace(samples, labels=torch.tensor(chosen, dtype=torch.int64))
    return ExplainedRows(keys, tuple(group.numbers[row] for row in rows), samples, every)
