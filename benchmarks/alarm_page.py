"""The page that reports the study of the alarm."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median

import numpy as np

from alarm_results import (
    ACCURACY_ALONE,
    MARGIN,
    ON_THE_GARMENT,
    RULE,
    Sign,
    Study,
    Told,
    alarm_step,
    final_qualities,
    rate_interval,
    told,
)
from alarm_trainings import MARK_SIZE, METRICS, RULES, Outcome
from libragrad_lightning.tables import TableRows

DEFAULT = "energy_inside"
"""The quality that `ShortcutAlarm` watches unless told otherwise."""

PLANNED = 20
"""Trainings of the whole study."""

_NAMES = {"libra": "LibraGrad", "plain": "plain"}

_PAGE = """\
# How early the alarm tells

Written by `python benchmarks/shortcut_alarm.py`. The model of `configs/shortcut.yaml` was trained
{total} times, {planted} times with a planted shortcut and {clean} times without, each time with a
seed of its own, for {steps} steps with an audit of {probes} validation images every {every} steps.
{strengths}
Plain gradients are the control: the same alarm on the same audits.{unfinished}

**What cannot be seen.** A color *of the garment* lies on the object. The model that reads it looks
at the object, and no measure of localization sees anything wrong: misses are expected there, and no
threshold helps. Stripes are planted beside the garment, not on it.

Without masks there is no such alarm: accuracy on validation images that are split off the training
images is *higher* with a shortcut. Beside other trainings that gives it away (*accuracy alone*
below), but who trains once has nothing to compare it with, and no threshold. Accuracy without the
shortcut, which says below when it is taken, is known here because the shortcut was planted.

## How well trainings are told apart

`ShortcutAlarm` has two signs. *Divergence*: quality falls while accuracy rises. *Out of sight*:
low quality at an accuracy of at least {min_accuracy}; it is off by default, and its `min_quality`
is {min_quality:.2f} here, the share of garment pixels and so the quality of a random map.

The statistic of a training is the threshold at which it would just set off the alarm at one of its
audits. AUC is how often a training with a shortcut has the larger one, with 95 % bootstrap
intervals, trainings of either group drawn anew. The ROC goes on below a `min_drop` of 0, which the
alarm does not take. Alarms are counted at a `min_drop` of 0.1, the default, and at that
`min_quality`. A shortcut counts as taken at the first of two consecutive audits whose accuracy
without it lies more than {margin} below the mean of clean trainings at the same step. Steps late
are those from there to the alarm, their median over trainings with both; negative is early. An
alarm waits for two audits that agree, and comes {every} steps after the first of them.

{table}

{verdict}

![ROC of both signs, and the quality of every training over its steps](shortcut_alarm.png)

Top: the dots are where alarms are counted. Bottom: gray, trainings without a shortcut.

## Where explanations end

Mean `{default}` at the last audit, and the lowest and highest of all trainings.

{ends}

## Every training with a shortcut

Steps, by `{default}`; — for never.

{trainings}

Trainings without a shortcut end with an accuracy of {accuracy}. Their alarms:

{false}

{caveats}
"""

_CAVEATS = """\
## What this does not say

- There are {planted} and {clean} trainings. Where one group lies above the other altogether, every
  bootstrap draw gives the same AUC, and the interval has no width. The exact 95 % interval of a
  rate of {planted} in {planted} is {all_true}, that of 0 in {clean} {no_false}.
- A shortcut that is taken before two audits saw the model without it leaves no divergence to be
  seen. *Out of sight* is for those, and it needs a `min_quality`.
- A training with a shortcut reaches an accuracy of {min_accuracy} early, and more of its audits
  count for *out of sight* than those of clean ones. That is a part of its AUC, and why a color of
  the garment can have a higher statistic although nothing is out of sight.
- The strength of the shortcuts was chosen in shorter trainings of other seeds, so that they are
  taken in the course of a training. There, a background of opacity 0.1 was taken before the first
  audit, and a mark of 2 to 4 pixels not within 400 to 1000 steps.
- A training counts as one with a shortcut whether it takes it or not.
- One small model, small images, and every image of the training has the shortcut.
"""


def page(of: Study, signs: Sequence[Sign], min_quality: float) -> str:
    """Return the report as Markdown."""
    length = of.clean[0].length
    return _PAGE.format(
        total=len(of.planted) + len(of.clean),
        planted=len(of.planted),
        clean=len(of.clean),
        steps=length.steps,
        probes=length.probes,
        every=length.every,
        strengths=_strengths(of),
        unfinished=_unfinished(of),
        min_accuracy=RULE.min_accuracy,
        min_quality=min_quality,
        margin=MARGIN,
        table=_table(of, signs),
        verdict="\n".join(f"- {line}" for line in verdict(of, signs)),
        default=DEFAULT,
        ends=_ends(of),
        trainings=_trainings(of, signs),
        accuracy=_accuracies(of.clean),
        false=_false(of, signs),
        caveats=_caveats(of),
    )


def verdict(of: Study, signs: Sequence[Sign]) -> list[str]:
    """Return sentences on what was found with the default quality, good or bad."""
    lines = []
    for sign in signs:
        libra, plain = (told(of, sign, f"{DEFAULT}/{rules}") for rules in RULES)
        lines.append(
            f"{sign.name.capitalize()}: {_alarms(of, libra)} with LibraGrad, {_alarms(of, plain)} "
            f"with plain gradients; LibraGrad's AUC is {_compared(libra.auc, plain.auc)}."
        )
        missed = _missed(of, sign)
        lines.append(f"{sign.name.capitalize()} with LibraGrad misses: {missed}.")
    return lines


def _alarms(of: Study, found: Told) -> str:
    return f"{found.true} of {len(of.planted)} found and {found.false} of {len(of.clean)} false"


def _compared(libra: float, plain: float) -> str:
    if abs(libra - plain) < 0.005:
        return f"the same ({libra:.2f})"
    word = "higher" if libra > plain else "lower"
    return f"{word} ({libra:.2f} against {plain:.2f})"


def _missed(of: Study, sign: Sign) -> str:
    counts = []
    for kind in _kinds(of):
        outcomes = [o for o in of.planted if o.training.shortcut == kind]
        silent = sum(alarm_step(o, sign, f"{DEFAULT}/libra") is None for o in outcomes)
        if silent:
            expected = ", as expected" if kind in ON_THE_GARMENT else ""
            counts.append(f"{kind} {silent} of {len(outcomes)}{expected}")
    return "; ".join(counts) if counts else "none"


def _table(of: Study, signs: Sequence[Sign]) -> str:
    rows = []
    for sign in signs:
        for metric in METRICS:
            for rules in RULES:
                found = told(of, sign, f"{metric}/{rules}")
                cells = _cells(of, found)
                if sign.name == "out of sight" and metric == "pointing_game":
                    cells = (*cells[:2], "", "", "")  # a random map has another quality there
                rows.append((sign.name, f"`{metric}`", _NAMES[rules], *cells))
    alone = _cells(of, told(of, ACCURACY_ALONE, f"{DEFAULT}/libra"))[:2]
    rows.append((ACCURACY_ALONE.name, "", "", *alone, "", "", ""))
    columns = ("sign", "quality", "gradients", "AUC", "AUC without color")
    return TableRows(
        (*columns, "true alarms", "false alarms", "steps late"), tuple(rows)
    ).markdown()


def _cells(of: Study, found: Told) -> tuple[str, ...]:
    low, high = found.interval
    return (
        f"{found.auc:.2f} ({low:.2f} to {high:.2f})",
        f"{found.auc_beside:.2f}",
        f"{found.true} of {len(of.planted)}",
        f"{found.false} of {len(of.clean)}",
        "" if found.late is None else f"{found.late:g}",
    )


def _ends(of: Study) -> str:
    ends = [final_qualities(of, f"{DEFAULT}/{rules}") for rules in RULES]
    rows = [(kind, *(_span(end[kind]) for end in ends)) for kind in ends[0]]
    return TableRows(("shortcut", *(_NAMES[rules] for rules in RULES)), tuple(rows)).markdown()


def _span(values: Sequence[float]) -> str:
    return f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _trainings(of: Study, signs: Sequence[Sign]) -> str:
    rows = []
    for outcome in sorted(of.planted, key=lambda o: (o.training.shortcut, o.training.seed)):
        last, training = outcome.audits[-1], outcome.training
        alarms = [alarm_step(outcome, s, f"{DEFAULT}/{r}") for s in signs for r in RULES]
        accuracies = (f"{last.accuracy:.2f}", f"{last.clean_accuracy:.2f}")
        steps = (_step(step) for step in (of.taken(outcome), *alarms))
        rows.append((training.shortcut, str(training.seed), *accuracies, *steps))
    heads = [f"{sign.name}, {_NAMES[rules]}" for sign in signs for rules in RULES]
    columns = ("shortcut", "seed", "accuracy with it", "without it", "taken", *heads)
    return TableRows(columns, tuple(rows)).markdown()


def _step(step: int | None) -> str:
    return "—" if step is None else str(step)


def _false(of: Study, signs: Sequence[Sign]) -> str:
    lines = []
    for sign in signs:
        for rules in RULES:
            steps = {o.training.seed: alarm_step(o, sign, f"{DEFAULT}/{rules}") for o in of.clean}
            said = [f"seed {seed} at {step}" for seed, step in steps.items() if step is not None]
            lines.append(f"- {sign.name}, {_NAMES[rules]}: {', '.join(said) or 'none'}")
    return "\n".join(lines)


def _kinds(of: Study) -> list[str]:
    return list(dict.fromkeys(o.training.shortcut for o in of.planted))


def _strengths(of: Study) -> str:
    said = []
    for kind in _kinds(of):
        strengths = [o.training.strength for o in of.planted if o.training.shortcut == kind]
        said.append(f"{kind} ({len(strengths)} trainings, opacity {strengths[0]:g})")
    return f"Shortcuts: {', '.join(said)}; a mark has {MARK_SIZE} x {MARK_SIZE} pixels."


def _unfinished(of: Study) -> str:
    total = len(of.planted) + len(of.clean)
    if total >= PLANNED:
        return ""
    return (
        f"\n\n**These are the first {total} of {PLANNED} trainings**, whose kinds take turns; the "
        "same command goes on."
    )


def _accuracies(outcomes: Sequence[Outcome]) -> str:
    last = [o.audits[-1].clean_accuracy for o in outcomes]
    return f"{np.min(last):.2f} to {np.max(last):.2f}, median {median(last):.2f}"


def _caveats(of: Study) -> str:
    planted, clean = len(of.planted), len(of.clean)
    true, false = rate_interval(planted, planted), rate_interval(0, clean)
    return _CAVEATS.format(
        min_accuracy=RULE.min_accuracy,
        planted=planted,
        clean=clean,
        all_true=f"{true[0]:.2f} to {true[1]:.2f}",
        no_false=f"{false[0]:.2f} to {false[1]:.2f}",
    ).rstrip()
