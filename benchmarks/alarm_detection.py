"""When alarms go off over trainings, and how well their statistics tell trainings apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from libragrad_lightning.monitoring import AuditedAccuracy

Floats = npt.NDArray[np.float64]
History = Sequence[AuditedAccuracy]


@dataclass(frozen=True)
class Rule:
    """The settings of `ShortcutAlarm` that are not swept; these are its defaults."""

    min_rise: float = 0.05
    patience: int = 2
    min_accuracy: float = 0.5


Statistic = Callable[[History, Rule], float]
"""What of the audits so far is compared with a threshold: the alarm goes off if it is as large."""


def drop(history: History, rule: Rule) -> float:
    """Return the largest `min_drop` at which the latest audits show a divergence, or -inf.

    That is how far the best of them lies below the worst of some consecutive audits earlier, all of
    them less accurate by `min_rise`. It is negative where explanations got better.
    """
    patience = rule.patience
    now = history[-patience:]
    drops = [-math.inf]
    for start in range(len(history) - 2 * patience + 1):
        before = history[start : start + patience]
        rise = min(a.accuracy for a in now) - max(a.accuracy for a in before)
        if rise >= rule.min_rise:
            drops.append(min(a.quality for a in before) - max(a.quality for a in now))
    return max(drops)


def lowness(history: History, rule: Rule) -> float:
    """Return minus the largest quality of the latest audits, or -inf if one is not accurate.

    The sign *out of sight* shows if this is above minus `min_quality`.
    """
    latest = history[-rule.patience :]
    accurate = all(audit.accuracy >= rule.min_accuracy for audit in latest)
    if len(latest) < rule.patience or not accurate:
        return -math.inf
    return -max(audit.quality for audit in latest)


def accuracy_alone(history: History, rule: Rule) -> float:
    """Return the least accuracy of the latest audits, of which nobody knows what is too much."""
    latest = history[-rule.patience :]
    return min(audit.accuracy for audit in latest) if len(latest) == rule.patience else -math.inf


def score(history: History, statistic: Statistic, rule: Rule) -> float:
    """Return the largest threshold at which the alarm goes off in the course of a training."""
    return max(statistic(history[:count], rule) for count in range(1, len(history) + 1))


def first_alarm(history: History, statistic: Statistic, threshold: float, rule: Rule) -> int | None:
    """Return the step of the audit at which the alarm goes off, if it does."""
    for count in range(1, len(history) + 1):
        if statistic(history[:count], rule) >= threshold:
            return history[count - 1].step
    return None


def roc(planted: Floats, clean: Floats) -> tuple[Floats, Floats]:
    """Return false and true alarm rates at every threshold, from above all scores downwards.

    Args:
        planted: Scores of trainings with a shortcut.
        clean: Scores of trainings without one.
    """
    thresholds = np.concatenate([[np.inf], np.unique(np.concatenate([planted, clean]))[::-1]])
    rates = [(scores >= thresholds[:, None]).mean(1) for scores in (clean, planted)]
    # At the threshold inf nothing goes off.
    false, true = (np.where(np.isposinf(thresholds), 0.0, rate) for rate in rates)
    return false, true


def auc(planted: Floats, clean: Floats) -> Floats:
    """Return how often a planted training has the higher score, ties counted by half.

    Args:
        planted: Scores, `[..., P]`.
        clean: Scores, `[..., C]`.

    Returns:
        `[...]`, 0 to 1.
    """
    first, second = planted[..., :, None], clean[..., None, :]
    return ((first > second) + 0.5 * (first == second)).mean((-2, -1))


def auc_interval(planted: Floats, clean: Floats, draws: int = 4000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of `auc`; trainings of either group are drawn anew.

    If all planted trainings score higher than all clean ones, every draw gives 1, and the interval
    says nothing.
    """
    rng = np.random.default_rng(0)
    drawn = [rng.choice(scores, (draws, len(scores))) for scores in (planted, clean)]
    low, high = np.quantile(auc(*drawn), [0.025, 0.975])
    return float(low), float(high)


def first_taken(
    steps: Sequence[int], clean_accuracy: Floats, reference: Floats, margin: float, patience: int
) -> int | None:
    """Return the step at which a training has taken its shortcut, if it does.

    That is the first of `patience` consecutive audits whose accuracy without the shortcut lies
    more than `margin` below that of trainings that never saw one.

    Args:
        steps: Of the audits.
        clean_accuracy: Accuracy without the shortcut, at each.
        reference: Mean accuracy of clean trainings, at each.
        margin: How far below.
        patience: Audits that must agree.
    """
    behind = clean_accuracy < reference - margin
    for start in range(len(steps) - patience + 1):
        if behind[start : start + patience].all():
            return steps[start]
    return None
