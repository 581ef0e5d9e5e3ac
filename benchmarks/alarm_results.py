"""What trainings with and without a shortcut say about the alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy import stats

from alarm_detection import (
    Floats,
    History,
    Rule,
    Statistic,
    accuracy_alone,
    auc,
    auc_interval,
    drop,
    first_alarm,
    first_taken,
    lowness,
    score,
)
from alarm_trainings import Outcome
from libragrad_lightning.monitoring import AuditedAccuracy

RULE = Rule()
MARGIN = 0.1
"""How far accuracy without the shortcut lies behind when the shortcut counts as taken."""


@dataclass(frozen=True)
class Sign:
    """One of the two signs by which the alarm goes off.

    Attributes:
        name: What the page calls it.
        statistic: What is compared with a threshold.
        threshold: The one at which alarms are counted.
    """

    name: str
    statistic: Statistic
    threshold: float


ACCURACY_ALONE = Sign("accuracy alone", accuracy_alone, float("inf"))
"""What is left without masks; nobody knows its threshold, so that it never goes off."""

ON_THE_GARMENT = ("color",)
"""Kinds of shortcuts that no quality of localization can see."""


@dataclass(frozen=True)
class Study:
    """The trainings, those with a shortcut and those without one."""

    planted: tuple[Outcome, ...]
    clean: tuple[Outcome, ...]

    @property
    def steps(self) -> list[int]:
        """The optimizer steps before each audit, the same in all trainings."""
        return [audit.step for audit in self.clean[0].audits]

    def reference(self) -> Floats:
        """Return the mean accuracy of clean trainings at each audit."""
        return np.mean([[a.clean_accuracy for a in o.audits] for o in self.clean], axis=0)

    def taken(self, outcome: Outcome) -> int | None:
        """Return the step at which a training has taken its shortcut, if it does."""
        accuracy = np.array([audit.clean_accuracy for audit in outcome.audits])
        return first_taken(self.steps, accuracy, self.reference(), MARGIN, RULE.patience)

    def scores(self, sign: Sign, quality: str) -> tuple[Floats, Floats]:
        """Return the largest thresholds at which trainings alarm, planted ones and clean ones."""
        planted, clean = (
            np.array([score(history(o, quality), sign.statistic, RULE) for o in of])
            for of in (self.planted, self.clean)
        )
        return planted, clean


@dataclass(frozen=True)
class Told:
    """How well one sign of one quality tells trainings with a shortcut from those without.

    Attributes:
        auc: Of all kinds.
        interval: Its 95 % bootstrap interval.
        auc_beside: Of the kinds that do not lie on the garment.
        true: At the threshold, alarms in trainings with a shortcut.
        false: Alarms in trainings without one.
        late: Median of the steps from where the shortcut is taken to the alarm, or None.
    """

    auc: float
    interval: tuple[float, float]
    auc_beside: float
    true: int
    false: int
    late: float | None


def signs(min_quality: float) -> tuple[Sign, Sign]:
    """Return both signs of `ShortcutAlarm`.

    Args:
        min_quality: Least acceptable quality of the second.
    """
    below = float(np.nextafter(-min_quality, np.inf))
    return Sign("divergence", drop, 0.1), Sign("out of sight", lowness, below)


def study(outcomes: Sequence[Outcome]) -> Study:
    """Sort outcomes."""
    planted = tuple(o for o in outcomes if o.training.is_planted)
    return Study(planted, tuple(o for o in outcomes if not o.training.is_planted))


def history(outcome: Outcome, quality: str) -> History:
    """Return what an alarm on a quality sees of a training.

    Args:
        outcome: The training.
        quality: A name such as ``energy_inside/libra``.
    """
    return [AuditedAccuracy(0, a.step, a.accuracy, a.qualities[quality]) for a in outcome.audits]


def alarm_step(outcome: Outcome, sign: Sign, quality: str) -> int | None:
    """Return the step at which an alarm goes off, if it does."""
    return first_alarm(history(outcome, quality), sign.statistic, sign.threshold, RULE)


def told(of: Study, sign: Sign, quality: str) -> Told:
    """Return how well a sign of a quality tells trainings apart."""
    planted, clean = of.scores(sign, quality)
    beside = np.array([o.training.shortcut not in ON_THE_GARMENT for o in of.planted])
    alarms = [(alarm_step(o, sign, quality), of.taken(o)) for o in of.planted]
    late = [alarm - taken for alarm, taken in alarms if alarm is not None and taken is not None]
    return Told(
        float(auc(planted, clean)),
        auc_interval(planted, clean),
        float(auc(planted[beside], clean)),
        sum(alarm is not None for alarm, _ in alarms),
        sum(alarm_step(o, sign, quality) is not None for o in of.clean),
        median(late) if late else None,
    )


def final_qualities(of: Study, quality: str) -> dict[str, list[float]]:
    """Return the quality at the last audit of each training, by kind of shortcut or ``none``."""
    found: dict[str, list[float]] = {}
    for outcome in (*of.clean, *of.planted):
        kind = outcome.training.shortcut if outcome.training.is_planted else "none"
        found.setdefault(kind, []).append(outcome.audits[-1].qualities[quality])
    return found


def rate_interval(count: int, total: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a rate (Clopper and Pearson)."""
    found = stats.binomtest(count, total).proportion_ci(method="exact")
    return float(found.low), float(found.high)
