"""Tables of what metrics gave each image: by class, and the best and the worst ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from libragrad_lightning.audit import NO_LABEL, ImageScores, Key, Statistic, is_known
from libragrad_lightning.reporting.captions import class_tag
from libragrad_lightning.reporting.directions import LOWER, arrow, has_direction
from libragrad_lightning.reporting.summary import number
from libragrad_lightning.tables import Cell, TableRows

_FIRST = ("srg", "segmentation_ap", "energy_inside", "mif_aopc", "lif_aopc")
"""Metrics that a table has room for, in the order in which they are chosen."""
_MOST_METRICS, _MOST_CLASSES = 3, 40


def main_metrics(scores: ImageScores) -> list[str]:
    """Return the few metrics that tables show, of those that images have values of."""
    known = dict.fromkeys(
        key.partition("/")[0] for key, v in scores.values.items() if bool(v.isfinite().any())
    )
    ordered = [*_FIRST, *(metric for metric in known if metric not in _FIRST)]
    return [m for m in ordered if m in known and has_direction(m)][:_MOST_METRICS]


def class_table(
    scores: ImageScores,
    rules: Sequence[str],
    statistics: Mapping[str, Statistic],
    names: Sequence[str] | None,
) -> TableRows | None:
    """Return a row for each class, with means over its images; None if there is one class only.

    Of many classes, those with the most images.

    Args:
        scores: What metrics gave each image.
        rules: The rule sets.
        statistics: How metrics read means over images, by their names.
        names: Names of the classes, or None.
    """
    found, counts = scores.classes[scores.classes != NO_LABEL].unique(return_counts=True)
    if len(found) < 2:
        return None
    order = counts.argsort(descending=True, stable=True)[:_MOST_CLASSES].sort().values
    metrics = main_metrics(scores)
    columns = [f"{m.replace('_', ' ')} {arrow(m)} {r}" for m in metrics for r in rules]
    rows: list[tuple[Cell, ...]] = []
    for place in order.tolist():
        own = scores.classes == found[place]
        right = scores.correct[own]
        cells = [
            number(_mean(scores.values.get(f"{m}/{r}"), own, statistics[m]))
            for m in metrics
            for r in rules
        ]
        name = class_tag(int(found[place]), names)
        rows.append((name, int(counts[place]), number(float(right.nanmean())), *cells))
    return TableRows(("class", "images", "accuracy", *columns), tuple(rows))


def extremes_table(
    scores: ImageScores,
    rules: Sequence[str],
    statistics: Mapping[str, Statistic],
    tags: Mapping[Key, str],
) -> TableRows | None:
    """Return which image is the worst and which the best in each main metric, with their values.

    Args:
        scores: What metrics gave each image.
        rules: The rule sets.
        statistics: How metrics read means over images, by their names.
        tags: The tags of images that are drawn; others are named by their place in the loader.
    """
    asked = {metric: statistics[metric] for metric in main_metrics(scores)}
    scalars, rows = scores.scalars(asked), []
    for metric in asked:
        for name in rules:
            values = scalars.get(f"{metric}/{name}")
            if values is not None and bool(values.isfinite().any()):
                known = values.isfinite().nonzero()[:, 0]
                ranked = known[values[known].argsort(stable=True, descending=metric in LOWER)]
                cells = [_image(scores.keys[i], values[i], tags) for i in ranked[[0, -1]].tolist()]
                rows.append((f"{metric.replace('_', ' ')} {arrow(metric)}", name, *cells))
    return (
        TableRows(("metric", "rules", "worst image", "best image"), tuple(rows)) if rows else None
    )


def scores_table(scores: ImageScores, statistics: Mapping[str, Statistic]) -> TableRows:
    """Return a row for each image, with what it gave to every metric.

    Args:
        scores: What metrics gave each image.
        statistics: How metrics read means over images, by their names.
    """
    values = {k: v for k, v in scores.scalars(statistics).items() if bool(v.isfinite().any())}
    columns = ("image", "class", "correct", *values)
    cells = [(scores.classes, scores.correct), values.values()]
    lists = [[_cell(v) for v in column.tolist()] for columns in cells for column in columns]
    places = [place for place, _ in scores.keys]
    return TableRows(columns, tuple(zip(places, *lists, strict=True)))


def _mean(values: Tensor | None, own: Tensor, statistic: Statistic) -> float | None:
    if values is None:
        return None
    known = own & is_known(values)
    if not bool(known.any()):
        return None
    return float(statistic(values[known].mean(0, keepdim=True))[0])


def _image(key: Key, value: Tensor, tags: Mapping[Key, str]) -> str:
    name = tags.get(key) or f"image {key[0]} of the loader"
    return f"{name}: {number(float(value))}"


def _cell(value: float) -> Cell:
    return None if value != value else value
