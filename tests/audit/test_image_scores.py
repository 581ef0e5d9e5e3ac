"""Every image has its own scores, in its own row, whatever was left out."""

import math
from dataclasses import replace

import pytest
import torch
from test_run import CONFIG, LABELS, TALL, Small, audited, group

from libragrad_lightning.audit import AuditResult, ImageScores, merged
from libragrad_lightning.audit.image_scores import drawn_scores, joined_scores, latest_scores
from libragrad_lightning.audit.metric_inputs import MetricInputs
from libragrad_lightning.audit.tasks import classes_of
from libragrad_lightning.metrics import DegenerateMapRate, SegmentationAP

NAN = float("nan")


def test_images_that_are_not_scored_have_no_value_in_their_rows():
    maps, mask = torch.rand(4, 3, 3), torch.eye(3, dtype=torch.bool).expand(4, 3, 3)
    informative = torch.tensor([True, False, True, True])
    inputs = MetricInputs(None, informative)
    metric = SegmentationAP()
    assert latest_scores(metric, inputs) is None
    metric.update(inputs.scored(maps), inputs.scored(mask))
    found = latest_scores(metric, inputs)
    assert found[1].isnan().all()
    assert torch.equal(found[informative], metric.latest)
    rate = DegenerateMapRate()
    rate.update(maps)
    assert torch.equal(latest_scores(rate, inputs), rate.latest)
    assert latest_scores(torch.nn.Identity(), inputs) is None


def test_the_scores_of_an_audit_are_what_its_values_are_means_of():
    config = replace(CONFIG, metrics=("srg", "mif_aopc", "degenerate_rate"))
    module = Small()
    run, found = audited([group(TALL, LABELS)], module, config)
    scores, statistics = found.scores, run.measurement.statistics
    assert scores.keys == tuple((10 + n, -1) for n in range(5))
    assert torch.equal(scores.classes, LABELS)
    right = (module(TALL).argmax(1) == LABELS).float()
    assert torch.equal(scores.correct, right)
    values = run.measurement.values()
    scalars = scores.scalars(statistics)
    assert set(scalars) == {f"{m}/{r}" for m in config.metrics for r in ("plain", "libra")}
    for name, each in scalars.items():
        assert each.shape == (5,)
        assert float(each.mean()) == pytest.approx(values[name])
    assert scores.values["srg/libra"].shape == (5, len(config.levels))
    alone = audited([group(TALL[3:4], LABELS[3:4])], module, config)[1].scores
    torch.testing.assert_close(
        alone.values["mif_aopc/libra"][0], scores.values["mif_aopc/libra"][3]
    )


def scores(count, first=0, **values):
    keys = tuple((first + n, -1) for n in range(count))
    found = {name.replace("_of_", "/"): v for name, v in values.items()}
    return ImageScores(keys, torch.arange(count), torch.ones(count), found)


def test_parts_are_joined_and_what_one_lacks_is_unknown():
    one = scores(2, a_of_x=torch.ones(2, 3))
    two = scores(1, 2, a_of_x=torch.zeros(1, 3), b_of_x=torch.tensor([5.0]))
    found = merged([AuditResult(scores=one), AuditResult(), AuditResult(scores=two)]).scores
    assert found.keys == ((0, -1), (1, -1), (2, -1))
    assert found.values["a/x"].tolist() == [[1.0] * 3, [1.0] * 3, [0.0] * 3]
    assert str(found.values["b/x"].tolist()) == str([NAN, NAN, 5.0])
    assert joined_scores([]).keys == ()


def test_an_image_stands_for_its_label_or_for_what_is_explained():
    outputs = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
    explained = torch.tensor([2, 1])
    classes, correct = classes_of(torch.tensor([1, -1]), outputs, explained, "multiclass")
    assert classes.tolist() == [1, -1]
    assert correct[0] == 0
    assert math.isnan(correct[1])
    several = torch.eye(3)[:2]
    classes, correct = classes_of(several, outputs, explained, "multilabel")
    assert classes.tolist() == [2, 1]
    assert correct.isnan().all()
    assert classes_of(None, outputs, explained, "multiclass")[0].tolist() == [2, 1]
    assert classes_of(None, outputs, explained, "regression")[0].tolist() == [-1, -1]


def test_what_is_drawn_of_draws_is_what_is_drawn_of_the_whole():
    whole = scores(1000, srg_of_libra=torch.arange(1000.0)[:, None])
    drawn = drawn_scores(whole, 100)
    assert (len(drawn.keys), drawn.left_out) == (100, 900)
    assert drawn.note == "of 100 of the 1000 images, drawn at random"
    places = torch.tensor([place for place, _ in drawn.keys])
    assert torch.equal(drawn.values["srg/libra"][:, 0], places.float())
    assert torch.equal(drawn.classes, places)
    # Neither the first nor the last ones: a mean of uniform draws, within four standard errors.
    assert abs(float(places.float().mean()) - 499.5) < 4 * 1000 / math.sqrt(12 * 100)
    halves = [
        drawn_scores(scores(500, first, srg_of_libra=torch.arange(500.0)[:, None] + first), 100)
        for first in (0, 500)
    ]
    again = drawn_scores(joined_scores(halves), 100)
    assert set(again.keys) == set(drawn.keys)
    assert again.left_out == 900
    few = scores(3)
    assert drawn_scores(few, 3) is few
    assert few.note == ""


def test_an_audit_keeps_the_scores_of_so_many_images_and_values_of_all():
    every, found = audited([group(TALL, LABELS)])
    some, drawn = audited([group(TALL, LABELS)], scored=2)
    assert drawn.scores.keys == drawn_scores(found.scores, 2).keys
    assert drawn.scores.left_out == 3
    values = some.measurement.values(), every.measurement.values()
    assert values[0] == pytest.approx(values[1], abs=0, nan_ok=True)
