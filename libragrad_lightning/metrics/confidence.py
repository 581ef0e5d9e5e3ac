"""Bootstrap confidence intervals around the metrics of this package."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from torchmetrics.wrappers.abstract import WrapperMetric

from libragrad_lightning.metrics.functional.bootstrap import (
    Bootstrap,
    Interval,
    bootstrap_interval,
    paired_bootstrap,
)
from libragrad_lightning.metrics.sample_mean import SampleMean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor


_BOUNDS = ("value", "lower", "upper")


class IntervalMetric(WrapperMetric):
    """A metric whose value is an interval; the base of the wrappers below.

    Args:
        bootstrap: How the interval is drawn.
        metric: What is measured.

    Raises:
        ValueError: If ``metric`` is not one of this package's means over samples.
    """

    empty: SampleMean
    is_differentiable: bool = False
    full_state_update: bool = False

    def __init__(self, metric: SampleMean, bootstrap: Bootstrap | None, **kwargs: Any) -> None:
        if not isinstance(metric, SampleMean):
            raise ValueError(
                "Expected argument `metric` to be a metric of this package that is a mean over"
                f" samples but got {type(metric).__name__}."
            )
        super().__init__(**{"dist_sync_on_step": metric.dist_sync_on_step} | kwargs)
        self.bootstrap = bootstrap
        # Metric forbids to assign what is an attribute of the class.
        vars(self).update(higher_is_better=metric.higher_is_better)
        self.empty = deepcopy(metric)
        self.empty.reset()
        self.empty.keep_samples()
        self.empty.dist_sync_on_step = False  # The wrapper gathers; such metrics do not merge.

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Add the samples of one batch and return the interval of the batch alone."""
        self.update(*args, **kwargs)
        batch = type(self)(self.empty, self.bootstrap)
        batch.update(*args, **kwargs)
        return _as_dict(batch._interval(gather=self.dist_sync_on_step))

    def compute(self) -> dict[str, Tensor]:
        """Return ``value``, ``lower`` and ``upper`` bound of all samples, scalars.

        ``is_reliable``, a boolean one, says whether they hold the true value as often as they say.
        """
        return _as_dict(self._interval(gather=self.sync_on_compute))

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        for metric in self._measuring.values():
            metric.reset()

    def persistent(self, mode: bool = False) -> None:
        """Choose whether ``state_dict`` holds the samples."""
        for metric in self._measuring.values():
            metric.persistent(mode)

    @property
    def metric_state(self) -> dict[str, list[Tensor] | Tensor]:
        """The states of the metrics that are wrapped, by name, such as ``metric.num_samples``."""
        return {
            f"{name}.{state}": value
            for name, metric in self._measuring.items()
            for state, value in metric.metric_state.items()
        }

    def plot(
        self,
        val: dict[str, Tensor] | Sequence[dict[str, Tensor]] | None = None,
        ax: Axes | None = None,
    ) -> tuple[Figure | None, Any]:
        """Draw one or several intervals with matplotlib.

        Args:
            val: Results of ``forward`` or ``compute``; by default the current one.
            ax: Axes to draw on; by default a new figure's.

        Returns:
            The figure and its axes.
        """
        found = self.compute() if val is None else val
        several = [found] if isinstance(found, dict) else list(found)
        bounds = [{name: each[name] for name in _BOUNDS} for each in several]
        return self._plot(bounds[0] if isinstance(found, dict) else bounds, ax)

    @property
    def _measuring(self) -> dict[str, SampleMean]:
        """The metrics that hold samples, by name."""
        found = {n: child for n, child in self.named_children() if isinstance(child, SampleMean)}
        del found["empty"]
        return found

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        if incoming_state.keys() != self.metric_state.keys():
            raise ValueError(
                f"Expected argument `incoming_state` to hold what {self.empty} measures, the states"
                f" {sorted(self.metric_state)}, but got {sorted(incoming_state)}."
            )
        for name, metric in self._measuring.items():
            metric.merge_state({s: incoming_state[f"{name}.{s}"] for s in metric.metric_state})

    def _interval(self, gather: bool) -> Interval:
        raise NotImplementedError


class ConfidenceInterval(IntervalMetric):
    """A metric with its bootstrap confidence interval over samples.

    The samples' values are kept, so the state grows with their number. The value is one number: of
    ``DeletionCurve`` and ``InsertionCurve``, which compute a curve, it is the area under it.

    As input to ``forward`` and ``update`` it accepts what the metric accepts. As output of
    ``forward`` and ``compute`` it returns a dictionary of scalars: ``value``, ``lower``, ``upper``,
    and ``is_reliable``, as `Interval` has it.
    The metric itself, with its counts of samples left out, is the attribute ``metric``.

    Args:
        metric: A metric of this package that is a mean over samples.
        bootstrap: Confidence, number of draws and seed; 95 % and 1000 draws by default.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``metric`` is something else.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import CompletenessError, ConfidenceInterval
        >>> metric = ConfidenceInterval(CompletenessError())
        >>> found = metric(torch.tensor([0.0, 1.0, 1.0, 0.0] * 25), torch.zeros(100))
        >>> {name: round(value.item(), 2) for name, value in found.items()}
        {'value': 0.5, 'lower': 0.4, 'upper': 0.6, 'is_reliable': 1}
    """

    metric: SampleMean

    def __init__(
        self, metric: SampleMean, bootstrap: Bootstrap | None = None, **kwargs: Any
    ) -> None:
        super().__init__(metric, bootstrap, **kwargs)
        self.metric = deepcopy(self.empty)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add the samples of one batch."""
        self.metric.update(*args, **kwargs)

    def _filter_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        return self.metric._filter_kwargs(**kwargs)

    def _interval(self, gather: bool) -> Interval:
        return bootstrap_interval(
            self.metric.samples(gather), self.bootstrap, self.metric.statistic
        )


class PairedDifference(IntervalMetric):
    """By how much one set of explanations beats another on the same samples, with its interval.

    Both are drawn together, so that what the samples have in common cancels. A sample that either
    leaves out is left out. The samples' values are kept, so the state grows with their number.

    As input to ``forward`` and ``update`` it accepts ``first`` and ``second``: the metric's
    arguments by name, for the same samples in the same order, such as those of Libra and of plain
    gradients. As output of ``forward`` and ``compute`` it returns a dictionary of scalars:
    ``value`` (first minus second), ``lower``, ``upper``, and ``is_reliable``, as `Interval` has it.

    Args:
        metric: A metric of this package that is a mean over samples.
        bootstrap: Confidence, number of draws and seed; 95 % and 1000 draws by default.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``metric`` is something else, or the numbers of samples differ.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import CompletenessError, PairedDifference
        >>> logit = torch.linspace(0, 1, 11)
        >>> libra = {"attribution_total": logit, "logit": logit}
        >>> plain = {"attribution_total": logit + 0.5, "logit": logit}
        >>> found = PairedDifference(CompletenessError())(libra, plain)
        >>> {name: round(value.item(), 2) for name, value in found.items()}
        {'value': -0.5, 'lower': -0.5, 'upper': -0.5, 'is_reliable': 0}
    """

    first: SampleMean
    second: SampleMean

    def __init__(
        self, metric: SampleMean, bootstrap: Bootstrap | None = None, **kwargs: Any
    ) -> None:
        super().__init__(metric, bootstrap, **kwargs)
        self.first, self.second = deepcopy(self.empty), deepcopy(self.empty)

    def update(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
        """Add the samples of one batch.

        Args:
            first: The metric's arguments by name.
            second: The same for the explanations to compare with.
        """
        batches = (deepcopy(self.empty), deepcopy(self.empty))
        for metric, arguments in zip(batches, (first, second), strict=True):
            metric.update(**arguments)
        sizes = [len(metric.samples(gather=False)) for metric in batches]
        if sizes[0] != sizes[1]:
            raise ValueError(
                "Expected arguments `first` and `second` to hold the same samples but got"
                f" {sizes[0]} and {sizes[1]} of them."
            )
        self.first.merge_state(batches[0])
        self.second.merge_state(batches[1])

    def _interval(self, gather: bool) -> Interval:
        return paired_bootstrap(
            self.first.samples(gather),
            self.second.samples(gather),
            self.bootstrap,
            self.first.statistic,
        )


def _as_dict(interval: Interval) -> dict[str, Tensor]:
    return {name: getattr(interval, name) for name in (*_BOUNDS, "is_reliable")}
