"""The study of the alarm: its statistics are the alarm's, it is resumable, and writes its page."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

import alarm_trainings
import shortcut_alarm
from alarm_detection import (
    Rule,
    accuracy_alone,
    auc,
    auc_interval,
    drop,
    first_alarm,
    first_taken,
    lowness,
    roc,
    score,
)
from alarm_page import page, verdict
from alarm_results import ACCURACY_ALONE, final_qualities, rate_interval, signs, study, told
from alarm_trainings import Audit, Length, Outcome, Training, outcomes, train_all
from libragrad_lightning.callbacks import ShortcutAlarm
from libragrad_lightning.monitoring import AuditedAccuracy

TINY = Length(steps=4, every=1, images=64, val=8, probes=4)
RULE = Rule()
CURVES = st.lists(
    st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.integers(0, 20).map(lambda n: n / 20)),
    min_size=1,
    max_size=9,
)


def history(curve):
    return [AuditedAccuracy(0, 10 * i, *values) for i, values in enumerate(curve)]


def live(curve, **kwargs):
    """The step at which the callback itself goes off."""
    alarm = ShortcutAlarm(**kwargs)
    for audit in history(curve):
        alarm.history.append(audit)
        if alarm.judge():
            return audit.step
    return None


@settings(max_examples=300, deadline=None)
@given(CURVES, st.sampled_from([0.05, 0.1, 0.3]), st.integers(1, 3))
def test_divergence_is_seen_when_the_callback_sees_it(curve, min_drop, patience):
    rule = Rule(patience=patience)
    step = live(curve, min_drop=min_drop, patience=patience)
    assert first_alarm(history(curve), drop, min_drop, rule) == step
    assert (score(history(curve), drop, rule) >= min_drop) == (step is not None)


@settings(max_examples=300, deadline=None)
@given(CURVES, st.sampled_from([0.2, 0.35, 0.5]), st.integers(1, 3))
def test_out_of_sight_is_seen_when_the_callback_sees_it(curve, min_quality, patience):
    _, sign = signs(min_quality)
    rule = Rule(patience=patience)
    step = live(curve, min_drop=9.0, min_quality=min_quality, patience=patience)
    assert first_alarm(history(curve), lowness, sign.threshold, rule) == step


def test_the_rule_is_the_default_of_the_callback():
    alarm = ShortcutAlarm()
    assert Rule() == Rule(alarm.min_rise, alarm.patience, alarm.min_accuracy)
    assert signs(0.3)[0].threshold == alarm.min_drop


def test_statistics_by_hand():
    curve = [(0.2, 0.6), (0.3, 0.5), (0.3, 0.9), (0.8, 0.2), (0.9, 0.3)]
    assert drop(history(curve), RULE) == pytest.approx(0.5 - 0.3)
    assert (
        drop(history(curve[:4]), RULE) == -math.inf
    )  # of the latest two, one is not more accurate
    assert lowness(history(curve), RULE) == -0.3
    assert lowness(history(curve[:4]), RULE) == -math.inf
    assert lowness(history(curve[:1]), RULE) == -math.inf
    assert score(history(curve[::-1]), drop, RULE) == -math.inf
    assert accuracy_alone(history(curve), RULE) == 0.8
    assert accuracy_alone(history(curve[:1]), RULE) == -math.inf


SCORES = st.lists(st.sampled_from([-math.inf, -0.2, 0.0, 0.1, 0.3, 0.5]), min_size=1, max_size=9)


@settings(max_examples=200, deadline=None)
@given(SCORES, SCORES)
def test_roc_and_auc_are_those_of_scikit_learn(planted, clean):
    planted, clean = np.array(planted), np.array(clean)
    truth = np.repeat([1, 0], [len(planted), len(clean)])
    ranks = np.unique(np.concatenate([planted, clean]), return_inverse=True)[1]  # it knows no -inf
    assert auc(planted, clean) == pytest.approx(roc_auc_score(truth, ranks))
    false, true, _ = roc_curve(truth, ranks, drop_intermediate=False)
    ours = roc(planted, clean)
    np.testing.assert_allclose(ours[0], false)
    np.testing.assert_allclose(ours[1], true)
    assert np.trapezoid(ours[1], ours[0]) == pytest.approx(auc(planted, clean))


def test_auc_by_hand():
    assert auc(np.array([0.3, 0.1]), np.array([0.1, 0.0])) == (1 + 1 + 0.5 + 1) / 4


def test_the_interval_of_auc_covers_what_it_should():
    """Scores of two normal distributions, one apart: the AUC is known."""
    rng, held = np.random.default_rng(0), 0
    truth = 0.5 * (1 + math.erf(1 / 2))
    for _ in range(100):
        low, high = auc_interval(rng.normal(1, 1, 25), rng.normal(0, 1, 25), draws=400)
        held += low <= truth <= high
    assert 88 <= held <= 99


def test_intervals_of_rates_by_hand():
    assert rate_interval(10, 10) == pytest.approx((0.025 ** (1 / 10), 1))
    assert rate_interval(0, 8) == pytest.approx((0, 1 - 0.025 ** (1 / 8)))


def test_when_a_shortcut_is_taken():
    reference = np.array([0.2, 0.4, 0.5, 0.5, 0.5, 0.5])
    accuracy = np.array([0.0, 0.35, 0.3, 0.45, 0.3, 0.2])
    steps = [10, 20, 30, 40, 50, 60]
    assert first_taken(steps, accuracy, reference, 0.1, 2) == 50
    assert first_taken(steps, accuracy, reference, 0.1, 1) == 10
    assert first_taken(steps, accuracy, reference, 0.1, 3) is None


def scripted(kind, strength, seed, accuracies, clean, libra, plain):
    audits = tuple(
        Audit(10 * i, a, c, {f"{m}/{r}": q for m in alarm_trainings.METRICS for r, q in by.items()})
        for i, (a, c, by) in enumerate(
            zip(
                accuracies,
                clean,
                ({"libra": x, "plain": y} for x, y in zip(libra, plain, strict=True)),
                strict=True,
            )
        )
    )
    return Outcome(Training(kind, strength, seed), TINY, audits, 1.0)


RISING, FLAT, FALLING = (0.2, 0.3, 0.6, 0.8), (0.5,) * 4, (0.6, 0.6, 0.2, 0.2)


def studied():
    planted = [
        scripted("mark", 1.0, 0, (0.2, 0.3, 0.9, 1.0), (0.2, 0.3, 0.1, 0.1), FALLING, FLAT),
        scripted("color", 0.3, 1, (0.2, 0.3, 0.9, 1.0), (0.2, 0.1, 0.1, 0.1), FLAT, FLAT),
    ]
    return study(planted + [scripted("mark", 0.0, s, RISING, RISING, FLAT, FLAT) for s in (2, 3)])


def test_what_a_study_tells_by_hand():
    divergence, hidden = signs(0.3)
    libra = told(studied(), divergence, "energy_inside/libra")
    # Taken at step 20; the alarm needs two audits after and goes off at 30.
    assert (libra.true, libra.false, libra.late) == (1, 0, 10)
    assert libra.auc == (2 + 1) / 4  # the color scores like clean trainings
    assert libra.auc_beside == 1.0
    plain = told(studied(), divergence, "energy_inside/plain")
    assert (plain.true, plain.false, plain.late, plain.auc) == (0, 0, None, 0.5)
    assert told(studied(), hidden, "energy_inside/libra").true == 1
    alone = told(studied(), ACCURACY_ALONE, "energy_inside/libra")
    assert (alone.auc, alone.true, alone.false) == (1.0, 0, 0)


def test_where_explanations_end():
    ends = final_qualities(studied(), "energy_inside/libra")
    assert ends == {"none": [0.5, 0.5], "mark": [0.2], "color": [0.5]}


def test_the_page_says_what_is_missed_and_where_plain_is_as_good():
    lines = verdict(studied(), signs(0.3))
    assert "1 of 2 found and 0 of 2 false with LibraGrad" in lines[0]
    assert "AUC is higher (0.75 against 0.50)" in lines[0]
    assert lines[1].endswith("misses: color 1 of 1, as expected.")
    swapped = studied()
    for outcome in (*swapped.planted, *swapped.clean):
        for audit in outcome.audits:
            q = audit.qualities
            for metric in alarm_trainings.METRICS:
                q[f"{metric}/libra"], q[f"{metric}/plain"] = (
                    q[f"{metric}/plain"],
                    q[f"{metric}/libra"],
                )
    assert "AUC is lower (0.50 against 0.75)" in verdict(swapped, signs(0.3))[0]
    assert "mark 1 of 1; color 1 of 1, as expected" in verdict(swapped, signs(0.3))[1]
    table = page(studied(), signs(0.3), 0.3)
    assert "| mark | 0 | 1.00 | 0.10 | 20 | 30 | — | 30 | — |" in table


def test_twenty_trainings_of_four_kinds_with_seeds_of_their_own():
    plan = shortcut_alarm.plan()
    assert len(plan) == len({t.seed for t in plan}) == 20
    planted = [t.shortcut for t in plan if t.is_planted]
    assert {kind: planted.count(kind) for kind in planted} == shortcut_alarm.COUNTS
    assert sum(shortcut_alarm.COUNTS.values()) == 10


@pytest.fixture
def trained(monkeypatch):
    """Trainings that were asked for, instead of trainings."""
    asked = []

    def train(training, length):
        asked.append(training)
        audit = Audit(1, 0.5, 0.25, {"energy_inside/libra": 1 / 3})
        return Outcome(training, length, (audit,), 1.5)

    monkeypatch.setattr(alarm_trainings, "train", train)
    return asked


def test_a_start_after_an_interruption_trains_what_is_missing(trained, tmp_path):
    file = tmp_path / "a" / "trainings.jsonl"
    plan = [Training("mark", 1.0, 0), Training("mark", 0.0, 1), Training("color", 0.3, 2)]
    first = train_all(plan[:2], TINY, file)
    assert trained == plan[:2]
    whole = file.read_text()
    file.write_text(whole + whole.splitlines()[0][:40])  # cut off while it was written
    found = train_all(plan, TINY, file)
    assert trained == plan
    assert found[:2] == first
    assert outcomes(file) == found == train_all(plan, TINY, file)
    assert trained == plan
    assert file.read_text().startswith(whole)
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_trainings_of_another_length_are_others(trained, tmp_path):
    file, plan = tmp_path / "trainings.jsonl", [Training("mark", 1.0, 0)]
    train_all(plan, TINY, file)
    longer = Length(8, 1, 64, 8, 4)
    assert train_all(plan, longer, file)[0].length == longer
    assert len(trained) == 2
    assert train_all(plan, TINY, file)[0].length == TINY
    assert len(trained) == 2


def test_two_trainings_and_their_page(tmp_path):
    sizes = {"steps": 4, "every": 1, "images": 64, "val": 8, "probes": 4}
    arguments = [f"--{name}={size}" for name, size in sizes.items()]
    arguments += [f"--work={tmp_path / 'work'}", f"--out={tmp_path / 'docs'}"]
    plan = [Training("texture", 0.2, 0), Training("mark", 0.0, 1)]
    shortcut_alarm.main(arguments, plan)
    planted, clean = outcomes(tmp_path / "work" / "trainings.jsonl")
    assert [a.step for a in planted.audits] == [1, 2, 3, 4]
    assert planted.length == TINY
    assert all(a.accuracy == a.clean_accuracy for a in clean.audits)
    assert all(0 <= q <= 1 for a in planted.audits for q in a.qualities.values())
    assert len(planted.audits[0].qualities) == 6
    text = (tmp_path / "docs" / "shortcut_alarm.md").read_text()
    assert "2 times, 1 times with a planted shortcut" in text
    assert (tmp_path / "docs" / "shortcut_alarm.png").stat().st_size > 10_000
    assert alarm_trainings.train(plan[0], TINY).audits == planted.audits
