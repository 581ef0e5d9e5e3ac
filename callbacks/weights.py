"""Which weights of a run are in the module at the moment."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn


def fingerprint(model: nn.Module) -> list[int]:
    """Return numbers that change whenever the weights do, NaN ones or not."""
    sums = [p.detach().sum(dtype=torch.float32).cpu() for p in model.parameters()]
    return torch.stack(sums).view(torch.int32).tolist() if sums else []


def training_is_over(trainer: pl.Trainer) -> bool:
    """Return whether stochastic weight averaging has put its average into the module for good.

    It does so before an additional epoch that only recomputes statistics of batch norms.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    averages = (c for c in callbacks if isinstance(c, StochasticWeightAveraging))
    return any(trainer.current_epoch > average.swa_end for average in averages)
