"""Which weights of a run are in the module at the moment."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from libragrad_lightning.both_lightnings import in_both
from libragrad_lightning.models import own_weights


class ExplainedWeights:
    """Tells which weights an audit explains.

    Attributes:
        label: ``initial``, ``current``, ``averaged``, ``final`` or the name of a checkpoint, as in
            `AuditRecord`.
        epoch: Their epoch, from 0; None if nothing tells.
    """

    def __init__(self) -> None:
        self.label = "current"
        self.epoch: int | None = None
        self._loaded: int | None = None
        self._trained: list[int] = []
        self._explained: list[int] = []

    def forget(self) -> None:
        """Begin with another run."""
        self._explained, self._loaded = [], None

    def load(self, epoch: int | None) -> None:
        """Go on with weights of a checkpoint that was written in an epoch."""
        self._loaded = epoch

    def begin(self, trainer: pl.Trainer, label: str = "current") -> None:
        """Look at the weights that are trained.

        Callbacks that average weights exchange them when the validation epoch starts.
        """
        self.label, self._trained = label, fingerprint(outermost(trainer))

    @property
    def are_explained(self) -> bool:
        """Whether the last audit of the fit had the weights that are trained."""
        return self._trained == self._explained

    def explain(self, trainer: pl.Trainer) -> str:
        """Look at the weights that are explained, and return their label."""
        self.epoch = trainer.current_epoch
        if trainer.state.fn != "fit":
            self._look_at_checkpoint(trainer)
        else:
            self._explained = fingerprint(outermost(trainer))
            if self.label == "current" and not self.are_explained:
                self.label = "averaged"
            if self.label == "current" and training_is_over(trainer):
                self.label = "averaged"
        return self.label

    def _look_at_checkpoint(self, trainer: pl.Trainer) -> None:
        if trainer.ckpt_path is None:
            # A fit that has ended counts the epoch that would have come next.
            self.epoch = trainer.current_epoch - 1 if trainer.current_epoch else None
        else:
            self.label, self.epoch = Path(str(trainer.ckpt_path)).name, self._loaded


def outermost(trainer: pl.Trainer) -> nn.Module:
    """Return the module of a Trainer, with what its strategy has put around it."""
    return trainer.strategy.model or trainer.lightning_module


def fingerprint(model: nn.Module) -> list[int]:
    """Return numbers that change whenever the weights of this process do, NaN ones or not.

    Waits once for every device.
    """
    sums: dict[torch.device, list[Tensor]] = {}
    for weight in own_weights(model):
        if not is_lazy(weight):
            of_device = sums.setdefault(weight.device, [])
            of_device.append(weight.detach().sum(dtype=torch.float32))
    return [n for of in sums.values() for n in torch.stack(of).view(torch.int32).tolist()]


def training_is_over(trainer: pl.Trainer) -> bool:
    """Return whether stochastic weight averaging has put its average into the module for good.

    It does so before an additional epoch that only recomputes statistics of batch norms.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    averages = (c for c in callbacks if isinstance(c, in_both(StochasticWeightAveraging)))
    return any(trainer.current_epoch > average.swa_end for average in averages)


def half_dtype(model: nn.Module) -> torch.dtype | None:
    """Return the first half-precision dtype among the parameters, or None."""
    half = (torch.float16, torch.bfloat16)
    return next((p.dtype for p in model.parameters() if p.dtype in half), None)
