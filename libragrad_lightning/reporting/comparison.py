"""How sure curves and differences are: intervals over the images of an audit.

Everything is read from what metrics gave each image while the audit ran; nothing is measured again.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from libragrad_lightning.attribution import Task
from libragrad_lightning.audit import ImageScores, Statistic, is_known
from libragrad_lightning.metrics import SegmentationAP
from libragrad_lightning.metrics.functional import Interval, bootstrap_interval
from libragrad_lightning.metrics.functional.bootstrap import FEWEST
from libragrad_lightning.reporting.directions import has_direction

K = TypeVar("K")


@dataclass(frozen=True)
class Curve:
    """A mean over images along a line, with its 95 % band.

    Attributes:
        rules: The rule set.
        order: What is deleted first, ``most influential first`` or ``least influential first``;
            empty where nothing is deleted.
        places: Where it is known.
        values: The means.
        lower: The lower end of the band, NaN where images are too few, or too alike, for one that
            holds the true value as often as it says.
        upper: The upper end.
    """

    rules: str
    order: str
    places: tuple[float, ...]
    values: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]


@dataclass(frozen=True)
class CurveChart:
    """Curves that share their axes.

    Attributes:
        title: What stands above.
        along: What the horizontal axis is.
        curves: The curves.
    """

    title: str
    along: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Difference:
    """By how much one rule set exceeds another in a metric, on the same images.

    Attributes:
        metric: The metric.
        rules: The rule set.
        baseline: The other one.
        value: The difference.
        lower: The lower end of its 95 % interval, paired over the images.
        upper: The upper end.
        is_reliable: Whether the interval holds the true value about as often as it says; not where
            single images decide.
    """

    metric: str
    rules: str
    baseline: str
    value: float
    lower: float
    upper: float
    is_reliable: bool


_MIF, _LIF = "most influential first", "least influential first"
_PRECISION, _PATCHES = "segmentation_ap", "share of patches deleted"
_CHARTS = (
    (
        "accuracy that is left",
        _PATCHES,
        (("mif_accuracy_drop", _MIF, -1), ("lif_accuracy", _LIF, 1)),
    ),
    ("probability that is lost", _PATCHES, (("mif_aopc", _MIF, 1), ("lif_aopc", _LIF, 1))),
    ("precision of the map inside the mask", "recall", ((_PRECISION, "", 1),)),
)
"""Titles, what charts are along, and metrics with their orders; -1 for one less the metric."""
_OF_QUANTITIES = {"probability that is lost": "share of the output that is lost"}


def curve_charts(
    scores: ImageScores, rules: Sequence[str], levels: Sequence[float], task: Task
) -> list[CurveChart]:
    """Return what deletion leaves, and the precision of maps inside of masks, as curves.

    Precision is the mean over images at each recall, whose area is the average precision that is
    logged; TensorBoard's own tab for such curves wants counts of pixels, which a mean has not.

    Args:
        scores: What metrics gave each image.
        rules: The rule sets.
        levels: The shares of patches that are deleted.
        task: What the scores mean.
    """
    found: dict[tuple[str, str, str, str], Tensor] = {}
    for title, along, metrics in _CHARTS:
        for metric, order, sign in metrics:
            for name in rules:
                values = scores.values.get(f"{metric}/{name}")
                if values is not None:
                    read = values[:, 1:] if metric == _PRECISION else values
                    said = _OF_QUANTITIES.get(title, title) if task == "regression" else title
                    found[said, along, name, order] = read if sign > 0 else 1 - read
    charts: dict[tuple[str, str], list[Curve]] = defaultdict(list)
    for (title, along, name, order), interval in _intervals(found).items():
        places = levels if order else SegmentationAP.recalls
        band = (
            end.where(interval.is_reliable, math.nan) for end in (interval.lower, interval.upper)
        )
        ends = (tuple(t.tolist()) for t in (interval.value, *band))
        charts[title, along].append(Curve(name, order, tuple(places), *ends))
    return [CurveChart(*said, tuple(curves)) for said, curves in charts.items()]


def differences(
    scores: ImageScores, rules: Sequence[str], statistics: Mapping[str, Statistic]
) -> list[Difference]:
    """Return by how much each rule set exceeds the first one, in metrics that say how good it is.

    Metrics that are known of the same images are drawn together, which takes the time of one.

    Args:
        scores: What metrics gave each image.
        rules: The rule sets.
        statistics: How metrics read means over images, by their names.
    """
    baseline, *others = rules
    found: dict[tuple[str, str], Difference] = {}
    asked = [metric for metric in statistics if has_direction(metric)]
    for name in others:
        groups: dict[bytes, list[str]] = defaultdict(list)
        for metric in asked:
            pair = [scores.values.get(f"{metric}/{r}") for r in (name, baseline)]
            if all(values is not None for values in pair):
                known = torch.stack([is_known(v) for v in pair if v is not None]).all(0)
                if int(known.sum()) >= FEWEST:
                    groups[known.numpy().tobytes()].append(metric)
        for metrics in groups.values():
            for difference in _paired(scores, metrics, (name, baseline), statistics):
                found[difference.metric, name] = difference
    return [found[key] for m in asked for n in others if (key := (m, n)) in found]


def _paired(
    scores: ImageScores,
    metrics: Sequence[str],
    pair: tuple[str, str],
    statistics: Mapping[str, Statistic],
) -> list[Difference]:
    parts = [scores.values[f"{m}/{r}"].double() for m in metrics for r in pair]
    flat = [part.reshape(len(part), -1) for part in parts]
    shapes = [part.shape[1:] for part in parts]
    widths = [part.shape[1] for part in flat]

    def statistic(means: Tensor) -> Tensor:
        columns = means.split(widths, 1)
        own = [c.reshape(-1, *s) for c, s in zip(columns, shapes, strict=True)]
        read = [statistics[m] for m in metrics]
        found = [of(own[2 * i]) - of(own[2 * i + 1]) for i, of in enumerate(read)]
        return torch.stack(found, 1)

    interval = bootstrap_interval(torch.cat(flat, 1), statistic=statistic)
    ends = (interval.value, interval.lower, interval.upper, interval.is_reliable)
    rows = zip(metrics, *(end.tolist() for end in ends), strict=True)
    return [Difference(metric, *pair, *bounds) for metric, *bounds in rows]


def _intervals(columns: Mapping[K, Tensor]) -> dict[K, Interval]:
    """Return means over images `[S]` with their intervals, NaN ones where images are too few.

    Args:
        columns: Values `[N, S]`. Those that are known of the same images are drawn together.
    """
    groups: dict[bytes, list[K]] = defaultdict(list)
    for key, values in columns.items():
        groups[is_known(values).numpy().tobytes()].append(key)
    found: dict[K, Interval] = {}
    for keys in groups.values():
        parts = [columns[key].double() for key in keys]
        interval = _interval(torch.cat(parts, 1)[is_known(parts[0])])
        widths = [part.shape[1] for part in parts]
        ends = (interval.value, interval.lower, interval.upper, interval.is_reliable)
        split = zip(*(end.split(widths) for end in ends), strict=True)
        found |= {key: Interval(*each) for key, each in zip(keys, split, strict=True)}
    known = {key: i for key, i in found.items() if bool(i.value.isfinite().any())}
    return {key: known[key] for key in columns if key in known}


def _interval(values: Tensor) -> Interval:
    if len(values) >= FEWEST:
        return bootstrap_interval(values, statistic=lambda means: means)
    value = values.mean(0)
    nowhere = torch.full_like(value, float("nan"))
    return Interval(value, nowhere, nowhere, torch.zeros_like(value, dtype=torch.bool))
