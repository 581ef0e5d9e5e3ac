"""Rows of perturbed images, as many at once as are fastest."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from libragrad_lightning.perturbation.operators import Masked
from libragrad_lightning.perturbation.rows import FastestRows


@dataclass(frozen=True)
class RowChunks:
    """Runs as many rows at once as are fastest."""

    masked: Masked
    most: int
    fastest: FastestRows | None = None

    def logits(self, rows: Tensor, kept: Tensor, count: int, share: float = 1.0) -> Tensor:
        """Return the logits of rows, each with that share of all patches."""
        found, start = [], 0
        while start < len(rows):
            full = self.most if self.fastest is None else self.fastest.at_once(self.most)
            stop = start + math.floor(full / share)
            begin = time.process_time()
            found.append(self.masked(rows[start:stop], kept[start:stop], count))
            if self.fastest is not None and stop <= len(rows):
                self.fastest.took(full, time.process_time() - begin)
            start = stop
        return torch.cat(found)
