"""When accuracy rises while explanations get worse. Knows numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AuditedAccuracy:
    """Accuracy and explanation quality of one audit.

    Attributes:
        epoch: The epoch of the audit, from 0.
        step: The optimizer steps taken before it.
        accuracy: Higher is better.
        quality: Higher is better.
    """

    epoch: int
    step: int
    accuracy: float
    quality: float


@dataclass(frozen=True)
class Divergence:
    """Accuracy and explanation quality that part.

    Attributes:
        before: Consecutive audits with lower accuracy and better explanations.
        now: The latest audits, as many.
    """

    before: tuple[AuditedAccuracy, ...]
    now: tuple[AuditedAccuracy, ...]


def find_divergence(
    history: Sequence[AuditedAccuracy], patience: int, min_rise: float, min_drop: float
) -> Divergence | None:
    """Compare the latest audits with all that came before them.

    Accuracy and quality part if *each* of the latest `patience` audits is more accurate by
    `min_rise`, and worse in quality by `min_drop`, than *each* of some `patience` consecutive
    audits before them. Neither one lucky audit nor one unlucky audit is enough.

    Args:
        history: All audits, oldest first.
        patience: Consecutive audits that must agree, on either side, at least 1.
        min_rise: Least rise of accuracy.
        min_drop: Least drop of quality.

    Returns:
        The latest audits and those before them from which quality fell most, or None.
    """
    now = tuple(history[-patience:])
    starts = range(len(history) - 2 * patience + 1)
    earlier = [tuple(history[start : start + patience]) for start in starts]
    parted = [
        before
        for before in earlier
        if min(a.accuracy for a in now) - max(a.accuracy for a in before) >= min_rise
        and min(a.quality for a in before) - max(a.quality for a in now) >= min_drop
    ]
    if not parted:
        return None
    return Divergence(max(parted, key=lambda before: min(a.quality for a in before)), now)
