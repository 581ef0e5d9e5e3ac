"""Confidence intervals from per-sample values, by drawing samples with replacement."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import ndtr, stdtrit

from libragrad_lightning.metrics.functional.checks import (
    check_floating_point,
    check_positive_integer,
    check_shape,
)
from libragrad_lightning.metrics.functional.precision import accumulation_dtype
from libragrad_lightning.metrics.functional.resampling import Resampling

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

FEWEST = 10
"""With fewer samples, or groups, intervals miss the true value more often than they say."""
_MOST_SKEWED = 0.45
"""From this skewness of resampled values on the same is so: it is the samples', over sqrt(n)."""
_CELLS_AT_ONCE = 2**17
"""So many draws stay in the cache of a processor."""


@dataclass(frozen=True)
class Bootstrap:
    """How an interval is drawn.

    Attributes:
        confidence: Share of intervals that hold the true value, in (0, 1).
        num_resamples: Number of times that the samples are drawn.
        seed: Seed of the draws. The same samples give the same interval, in any order.

    Raises:
        ValueError: If the confidence or the number of draws is out of range.
    """

    confidence: float = 0.95
    num_resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive_integer("num_resamples", self.num_resamples)
        if not 0 < self.confidence < 1:
            raise ValueError(
                f"Expected argument `confidence` to be between 0 and 1 but got {self.confidence!r}."
            )


@dataclass(frozen=True)
class Interval:
    """A value and the bounds of its confidence interval; float64, scalar unless there are several.

    Attributes:
        value: The value of all samples.
        lower: Lower bound.
        upper: Upper bound.
        is_reliable: Whether it holds the true value about as often as its confidence says, boolean:
            not if there are fewer than `FEWEST` samples or groups, or so few that differ from the
            most common value, or if they are so skewed that some rare ones decide, as single
            errors among right answers do.
    """

    value: Tensor
    lower: Tensor
    upper: Tensor
    is_reliable: Tensor


def bootstrap_interval(
    values: Tensor,
    bootstrap: Bootstrap | None = None,
    statistic: Callable[[Tensor], Tensor] | None = None,
    groups: Tensor | None = None,
) -> Interval:
    """Return a statistic of the mean over samples, with its expanded percentile interval.

    Percentiles of resampled values are too narrow for few samples: by sqrt((n - 1) / n), as the
    deviation of a sample is, and because normal quantiles stand for those of Student's t. So wider
    percentiles are taken, which make both good. A warning says, once, if samples are too few for
    that; `docs/coverage.md` has the measured coverage.

    Samples that have something in common, such as images of one patient or of one object, say less
    than as many independent ones. Name their groups, and groups are drawn instead.

    Args:
        values: One value per sample [N], or one array of values [N, ...], any floating point type.
            Samples with a value that is not finite are left out.
        bootstrap: Confidence, number of draws and seed; 95 % and 1000 draws by default.
        statistic: Takes means over samples [R, ...] to the R values of interest [R], or to
            several, [R, K]; by default the mean of all entries.
        groups: Which samples belong together: equal numbers [N], an integer type. Each sample is a
            group of its own by default.

    Returns:
        Value and bounds, [] or [K], NaN without a valid sample. Each of several values has an
        interval of its own, from the same draws.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import bootstrap_interval
        >>> interval = bootstrap_interval(torch.tensor([0.0, 1.0, 1.0, 0.0] * 25))
        >>> [round(bound.item(), 2) for bound in (interval.lower, interval.value, interval.upper)]
        [0.4, 0.5, 0.6]

    Source:
        Hesterberg, What Teachers Should Know about the Bootstrap (The American Statistician 2015),
        section 5.3, on expanded percentiles; Davison and Hinkley, Bootstrap Methods and their
        Application (1997), section 3.8, on drawing groups.
    """
    check_floating_point("values", values)
    _check_groups(groups, values)
    settings, statistic = bootstrap or Bootstrap(), statistic or _mean_of_entries
    samples = values.to(accumulation_dtype(values.device))
    rows = samples.flatten(1) if samples.ndim > 1 else samples[:, None]
    finite = rows.isfinite().all(dim=1)
    valid = samples[finite]
    if len(valid) == 0:
        nan = statistic(samples.new_full((1, *samples.shape[1:]), float("nan")))[0]
        return Interval(nan, nan, nan, torch.zeros_like(nan, dtype=torch.bool))
    # Scaled by a power of two, which is exact, sums of the largest numbers are finite.
    scale = 0.25 ** math.ceil(math.log2(len(valid)))
    scaled = valid * scale
    value = statistic(scaled.mean(dim=0, keepdim=True) / scale)[0]
    drawable = _sums_and_counts(
        scaled.reshape(len(valid), -1), None if groups is None else groups[finite]
    )
    means = _resampled_means(_sorted(drawable), settings) / scale
    drawn = statistic(means.reshape(-1, *valid.shape[1:]))
    alone = statistic((drawable[:, :-1] / drawable[:, -1:] / scale).reshape(-1, *valid.shape[1:]))
    tail = _expanded_tail((1 - settings.confidence) / 2, drawable[:, -1])
    lower, upper = drawn.quantile(drawn.new_tensor([tail, 1 - tail]), dim=0)
    return Interval(value, lower, upper, _is_reliable(drawn, alone))


def paired_bootstrap(
    values: Tensor,
    baseline: Tensor,
    bootstrap: Bootstrap | None = None,
    statistic: Callable[[Tensor], Tensor] | None = None,
    groups: Tensor | None = None,
) -> Interval:
    """Return by how much values exceed a baseline on the same samples, with its interval.

    Both are drawn together, so that what the samples have in common cancels. A sample is left out
    if either of its values is not finite.

    Args:
        values: One value per sample [N], or one array of values [N, ...], any floating point type.
        baseline: Values of the same samples in the same order, of the same shape.
        bootstrap: Confidence, number of draws and seed; 95 % and 1000 draws by default.
        statistic: Takes means over samples [R, ...] to the R values of interest [R], or to
            several, [R, K]; by default the mean of all entries.
        groups: Which samples belong together: equal numbers [N], an integer type. Each sample is a
            group of its own by default.

    Returns:
        Difference and bounds, [] or [K], NaN without a valid sample.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import paired_bootstrap
        >>> easy_and_hard = torch.rand(50)
        >>> round(paired_bootstrap(easy_and_hard + 0.1, easy_and_hard).lower.item(), 4)
        0.1
    """
    check_floating_point("values", values)
    check_floating_point("baseline", baseline)
    check_shape("baseline", baseline, tuple(values.shape), "values")
    of_means = statistic or _mean_of_entries
    dtype = accumulation_dtype(values.device)
    return bootstrap_interval(
        torch.stack([values.to(dtype), baseline.to(dtype)], dim=1),
        bootstrap,
        lambda means: of_means(means[:, 0]) - of_means(means[:, 1]),
        groups,
    )


def _expanded_tail(tail: float, sizes: Tensor) -> float:
    """Return which share of resampled values lies beyond a bound, for that share of true values.

    Groups of unequal sizes [G] say as much as fewer equal ones (Kish, Survey Sampling, 1965).
    """
    count = float(sizes.sum().square() / sizes.square().sum())
    if len(sizes) == 1:
        return 0.0
    return float(ndtr(math.sqrt(count / (count - 1)) * stdtrit(count - 1, tail)))


def _is_reliable(drawn: Tensor, alone: Tensor) -> Tensor:
    """Return whether intervals of resampled values [R] or [R, K] hold what they say, [] or [K].

    Args:
        drawn: The resampled values.
        alone: What each sample or group would give alone, [G] or [G, K].
    """
    if len(alone) < FEWEST:
        warnings.warn(
            f"A confidence interval of fewer than {FEWEST} samples, or groups of them, misses the "
            "true value more often than it says; add samples, or take it for a guess.",
            stacklevel=3,
        )
    off = drawn - drawn.mean(dim=0)
    deviation = off.square().mean(dim=0).sqrt()
    skewness = (off / deviation).pow(3).mean(dim=0).abs()  # NaN where all are equal
    # As for normal approximations of shares: there must be so many of either kind.
    # Not every device has a mode.
    common = alone.cpu().mode(dim=0).values.to(alone.device)
    unlike = (alone != common).sum(dim=0) + 1
    return (skewness <= _MOST_SKEWED) & (unlike >= FEWEST)


def _sums_and_counts(samples: Tensor, groups: Tensor | None) -> Tensor:
    """Return the sums of samples [N, K] over G groups, and their sizes, [G, K + 1]."""
    counted = torch.cat([samples, samples.new_ones(len(samples), 1)], dim=1)
    if groups is None:
        return counted
    found, index = groups.to(samples.device).unique(return_inverse=True)
    return counted.new_zeros(len(found), counted.shape[1]).index_add_(0, index, counted)


def _resampled_means(sums: Tensor, settings: Bootstrap) -> Tensor:
    """Return the means [R, K] of draws from groups with these sums and sizes [G, K + 1]."""
    count = len(sums)
    # Drawn on the CPU, so that every device sees the same draws.
    resampling = Resampling(count, np.random.Generator(np.random.SFC64(settings.seed)))
    columns, means = sums.T.contiguous(), []
    for draws in torch.arange(settings.num_resamples).split(max(1, _CELLS_AT_ONCE // count)):
        drawn = F.linear(resampling.times(len(draws)).to(sums), columns)
        means.append(drawn[:, :-1] / drawn[:, -1:])
    return torch.cat(means)


def _check_groups(groups: Tensor | None, values: Tensor) -> None:
    if groups is None:
        return
    if groups.is_floating_point() or groups.is_complex() or groups.dtype == torch.bool:
        raise ValueError(
            f"Expected argument `groups` to be an integer tensor but got {groups.dtype}."
        )
    if groups.shape != values.shape[:1]:
        raise ValueError(
            f"Expected argument `groups` to have shape {list(values.shape[:1])}, one number for "
            f"each sample, but got {list(groups.shape)}."
        )


def _sorted(samples: Tensor) -> Tensor:
    """Sort samples [N, K] by their first value, equal ones by the next, and so on."""
    for column in reversed(range(samples.shape[1])):
        samples = samples[samples[:, column].argsort(stable=True)]
    return samples


def _mean_of_entries(means: Tensor) -> Tensor:
    return means.reshape(len(means), -1).mean(dim=1)
