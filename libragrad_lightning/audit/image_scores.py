"""What metrics give every image by itself: for histograms, classes, intervals and extremes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TypeAlias

import torch
from torch import Tensor
from torchmetrics import Metric

from libragrad_lightning.audit.keys import Key
from libragrad_lightning.audit.metric_inputs import MetricInputs
from libragrad_lightning.metrics.sample_mean import SampleMean

Statistic: TypeAlias = Callable[[Tensor], Tensor]
"""Takes means over images `[R, *shape]` of what a metric keeps to R values of the metric."""

MOST_SCORED = 4096
"""Of how many images of an audit scores are kept, so that neither memory nor what processes send
each other grows with their number; an interval of so many is one part in 64 of their spread."""


@dataclass(frozen=True, eq=False)
class ImageScores:
    """What is found of each of N images, or of as many that were drawn of more.

    Attributes:
        keys: What the images are remembered by.
        classes: Their labels, or without labels what is explained, int64 `[N]`; negative for none.
        correct: 1 or 0 for whether the model is right about the label, float32 `[N]`, NaN where
            that is unknown.
        values: By ``metric/rules``, what the metric's mean over images is made of, `[N, *shape]`,
            NaN for images that are not scored.
        left_out: How many others were not drawn.
    """

    keys: tuple[Key, ...] = ()
    classes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    correct: Tensor = field(default_factory=lambda: torch.zeros(0))
    values: Mapping[str, Tensor] = field(default_factory=dict)
    left_out: int = 0

    @property
    def note(self) -> str:
        """What is to be said where these images stand for more, or nothing."""
        if not self.left_out:
            return ""
        count = len(self.keys)
        return f"of {count} of the {count + self.left_out} images, drawn at random"

    def to_cpu(self) -> ImageScores:
        """Return the same on the CPU."""
        values = {name: v.cpu() for name, v in self.values.items()}
        return replace(self, classes=self.classes.cpu(), correct=self.correct.cpu(), values=values)

    def scalars(self, statistics: Mapping[str, Statistic]) -> dict[str, Tensor]:
        """Return the value `[N]` that each image alone gives to a metric, by ``metric/rules``.

        Args:
            statistics: How values are read, by metric; others are left out.
        """
        return {
            name: statistics[metric](v)
            for name, v in self.values.items()
            if (metric := name.partition("/")[0]) in statistics
        }


def joined_scores(parts: Sequence[ImageScores]) -> ImageScores:
    """Return the scores of several parts as one; what only some have is NaN in the others."""
    parts = [part for part in parts if part.keys]
    if not parts:
        return ImageScores()
    shapes = {name: v[:0] for part in parts for name, v in part.values.items()}
    return ImageScores(
        tuple(key for part in parts for key in part.keys),
        torch.cat([part.classes for part in parts]),
        torch.cat([part.correct for part in parts]),
        {name: torch.cat([_filled(part, name, v) for part in parts]) for name, v in shapes.items()},
        sum(part.left_out for part in parts),
    )


def drawn_scores(scores: ImageScores, most: int = MOST_SCORED) -> ImageScores:
    """Return the scores of at most so many images, drawn at random, and always the same.

    Those are drawn whose places have the smallest digests, so that what is drawn of all parts'
    draws is what would be drawn of the whole.
    """
    if len(scores.keys) <= most:
        return scores
    digests = [blake2b(repr(key).encode(), digest_size=8).digest() for key in scores.keys]
    rows = sorted(sorted(range(len(digests)), key=digests.__getitem__)[:most])
    return ImageScores(
        tuple(scores.keys[row] for row in rows),
        scores.classes[rows],
        scores.correct[rows],
        {name: v[rows] for name, v in scores.values.items()},
        scores.left_out + len(digests) - most,
    )


def is_known(values: Tensor) -> Tensor:
    """Return which images have values `[N, *shape]`, bool `[N]`."""
    return values.reshape(len(values), -1).isfinite().all(1)


def latest_scores(metric: Metric, inputs: MetricInputs) -> Tensor | None:
    """Return what a metric has just been fed, a row per image of the chunk.

    Args:
        metric: The metric, after its update.
        inputs: What it was fed.

    Returns:
        `[B, *shape]`, NaN for images that are not scored; None if it is no mean over images.
    """
    values = metric.latest if isinstance(metric, SampleMean) else None
    if values is None or len(values) == len(inputs.informative):
        return values
    rows = values.new_full((len(inputs.informative), *values.shape[1:]), float("nan"))
    rows[inputs.informative] = values
    return rows


def _filled(part: ImageScores, name: str, like: Tensor) -> Tensor:
    found = part.values.get(name)
    if found is not None:
        return found
    return like.new_full((len(part.keys), *like.shape[1:]), float("nan"))
