"""The mean over samples that every metric of this package rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from libragrad_lightning.metrics.float64_metric import Float64Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class SampleMean(Float64Metric):
    """A function of the mean over samples of one value, or one array of values, per sample.

    A sample with a non-finite value is left out whole and counted in ``num_invalid``. Without any
    valid sample the mean is NaN. The states do not grow with the number of samples, unless
    ``keep_samples`` asks for it. They stay in float64 (float32 on devices without float64), because
    a half-precision sum stops growing after some hundred samples.

    Args:
        shape: Shape of one sample's value, ``()`` for a scalar.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Attributes:
        total_name: Name of the state that holds the sum. Each quantity has its own, since
            ``MetricCollection`` merges metrics whose states have equal names and, after the first
            batch, equal values. Metrics that read one quantity differently share a name.
        latest: What the last ``update`` added, one value per sample [B, *shape], NaN for samples
            left out; None before. It is no state: it is of one process, and reset leaves it.
    """

    total_name: ClassVar[str]
    kept: list[Tensor]
    latest: Tensor | None

    def __init__(self, shape: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.latest = None
        total = torch.zeros(self.shape, dtype=torch.float64)
        self.add_state(self.total_name, total, dist_reduce_fx="sum")

    def statistic(self, mean: Tensor) -> Tensor:
        """Return the metric's values for means over samples.

        Args:
            mean: R means over samples [R, *shape].

        Returns:
            The mean of the entries of each, unless the metric says otherwise: [R].
        """
        return mean.reshape(len(mean), -1).mean(dim=1)

    def compute(self) -> Tensor:
        """Return the metric's value, a scalar."""
        return self.statistic(self._mean()[None])[0]

    def keep_samples(self) -> None:
        """Keep one value per sample from now on, as confidence intervals need it."""
        if "kept" not in self._defaults:
            rows = torch.zeros(0, *self.shape, dtype=torch.float64)
            self.add_rows("kept", rows)
            self.persistent(any(self._persistent.values()))

    def samples(self, gather: bool = True) -> Tensor:
        """Return the values kept by ``keep_samples`` [N, *shape], NaN for samples left out.

        Args:
            gather: Whether to gather the samples of all processes. Then, as for ``compute``, every
                process has to call it.
        """
        if not gather:
            return self._rows("kept")
        with self._gathered():
            return self._rows("kept")

    def _add(self, values: Tensor, **left_out: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            values: One value per sample [B, *shape].
            left_out: Samples to leave out [B], boolean, by the state that counts them. A sample is
                counted once, by the first that names it, else as invalid.
        """
        values = values.detach()
        valid = values.reshape(len(values), -1).isfinite().all(dim=1)
        waiting = torch.ones_like(valid)
        for count, flags in left_out.items():
            setattr(self, count, getattr(self, count) + (flags & waiting).sum())
            waiting = waiting & ~flags
        used = valid & waiting
        used_entries = used.view(-1, *[1] * len(self.shape))
        total = getattr(self, self.total_name) + torch.where(used_entries, values, 0.0).sum(dim=0)
        setattr(self, self.total_name, total)
        self.num_samples = self.num_samples + used.sum()
        self.num_invalid = self.num_invalid + (waiting & ~valid).sum()
        self.latest = values.masked_fill(~used_entries, float("nan"))
        if "kept" in self._defaults:
            self.kept.append(self.latest)

    def _mean(self) -> Tensor:
        mean: Tensor = getattr(self, self.total_name) / self.num_samples
        return mean


class SampleCurve(SampleMean):
    """A mean over samples at every point of a curve; the base of the metrics that have one.

    Args:
        num_points: Number S of points.
        kwargs: Further arguments of ``torchmetrics.Metric``.
    """

    def __init__(self, num_points: int, **kwargs: Any) -> None:
        super().__init__((num_points,), **kwargs)

    def curve(self) -> Tensor:
        """Return the mean over samples at every point, [S].

        Like ``compute``, it gathers the states of all processes, so every process has to call it.
        """
        with self._gathered():
            return self._mean()
