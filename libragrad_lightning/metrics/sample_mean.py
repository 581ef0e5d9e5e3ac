"""The mean over samples that every metric of this package is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torchmetrics import Metric

from libragrad_lightning.metrics.functional.precision import accumulation_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn
    from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE


class SampleMean(Metric):
    """Mean over samples of one value, or one vector of values, per sample.

    A sample with a non-finite value is left out whole and counted in ``num_invalid``. Without any
    valid sample the mean is NaN. The states do not grow with the number of samples. They stay in
    float64 (float32 on devices without float64) whatever dtype the module is converted to, because
    a half-precision sum stops growing after some hundred samples.

    Args:
        shape: Shape of one sample's value, ``()`` for a scalar.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Attributes:
        total_name: Name of the state that holds the sum. Each quantity has its own, since
            ``MetricCollection`` merges metrics whose states have equal names and, after the first
            batch, equal values.
        num_samples: State: number of samples averaged.
        num_invalid: State: number of samples left out because a value was not finite.
    """

    is_differentiable: bool = False
    full_state_update: bool = False

    total_name: ClassVar[str]
    num_samples: Tensor
    num_invalid: Tensor

    def __init__(self, shape: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        total = torch.zeros(tuple(shape), dtype=torch.float64)
        self.add_state(self.total_name, total, dist_reduce_fx="sum")
        self.add_state("num_samples", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("num_invalid", torch.tensor(0), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """Return the mean over samples and over the entries of one sample's value."""
        return self._mean().mean()

    def plot(
        self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None
    ) -> _PLOT_OUT_TYPE:
        """Draw one or several values of the metric with matplotlib.

        Args:
            val: Results of ``forward`` or ``compute``; by default the current value.
            ax: Axes to draw on; by default a new figure's.

        Returns:
            The figure and its axes.
        """
        return self._plot(val, ax)

    def _add(self, values: Tensor) -> None:
        """Add one value per sample, [B, *shape]."""
        values = values.movedim(0, -1)
        valid = values.isfinite()[None].flatten(end_dim=-2).all(dim=0)
        total = getattr(self, self.total_name) + torch.where(valid, values, 0.0).sum(dim=-1)
        setattr(self, self.total_name, total)
        self.num_samples = self.num_samples + valid.sum()
        self.num_invalid = self.num_invalid + (~valid).sum()

    def _mean(self) -> Tensor:
        mean: Tensor = getattr(self, self.total_name) / self.num_samples
        return mean

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        device = fn(torch.empty(0, device=self.device)).device
        dtype = accumulation_dtype(device)

        def move(state: Tensor) -> Tensor:
            return state.to(device, dtype if state.is_floating_point() else None)

        return super()._apply(move, exclude_state)
