"""Finds the images of an audit to which a metric gives its worst and its best value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from libragrad_lightning.audit import ExplainedChunk
from libragrad_lightning.reporting.directions import LOWER
from libragrad_lightning.reporting.summary import number

_METRICS = ("segmentation_ap", "energy_inside", "mif_aopc", "lif_aopc")
"""Metrics that tell single images apart, in the order in which one of them is chosen."""


@dataclass(frozen=True)
class Extreme:
    """An image that is worse, or better, than all before it.

    Attributes:
        name: What it is, such as ``worst_segmentation_ap``.
        row: Its row in the chunk.
        remark: What is to be said of it.
    """

    name: str
    row: int
    remark: str


@dataclass
class Extremes:
    """Follows one metric under the last rule set over the images of an audit.

    Attributes:
        seen: Of how many images it has seen values.
    """

    seen: int = 0
    _metric: str | None = None
    _found: dict[str, float] = field(default_factory=dict)

    def new_in(self, chunk: ExplainedChunk) -> Iterator[Extreme]:
        """Yield images of a chunk that are worse or better than all before.

        Args:
            chunk: The chunk.
        """
        rules = chunk.inputs[-1].explanation.rules.name
        there = (m for m in _METRICS if f"{m}/{rules}" in chunk.values)
        self._metric = self._metric or next(there, None)
        values = chunk.values.get(f"{self._metric}/{rules}")
        if self._metric is None or values is None or not bool(values.isfinite().any()):
            return
        self.seen += int(values.isfinite().sum())
        worse, better = (1, -1) if self._metric in LOWER else (-1, 1)
        for kind, sign in (("worst", worse), ("best", better)):
            row = int((sign * values.double()).nan_to_num(-float("inf")).argmax())
            value = sign * float(values[row])
            if value > self._found.get(kind, -float("inf")):
                self._found[kind] = value
                said = f"{self._metric.replace('_', ' ')} {number(sign * value)} ({rules})"
                remark = f"{kind} {said}: image {chunk.keys[row][0]} of the loader"
                yield Extreme(f"{kind}_{self._metric}", row, remark)
