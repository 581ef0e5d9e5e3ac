"""Curves and differences are those of the package's own metrics, with their intervals."""

import math
from dataclasses import replace

import pytest
import torch
from score_cases import COUNT, LEVELS, RULES, STATISTICS, scores

from libragrad_lightning.metrics import SegmentationAP
from libragrad_lightning.metrics.functional import bootstrap_interval, paired_bootstrap
from libragrad_lightning.reporting.comparison import curve_charts, differences
from libragrad_lightning.reporting.comparison_figure import comparison_figure


def test_curves_are_means_over_images_along_the_levels():
    found = scores()
    charts = curve_charts(found, RULES, LEVELS, "multiclass")
    assert [chart.title for chart in charts] == [
        "accuracy that is left",
        "probability that is lost",
        "precision of the map inside the mask",
    ]
    left, lost, precision = charts
    assert [(c.rules, c.order) for c in left.curves] == [
        ("plain", "most influential first"),
        ("libra", "most influential first"),
    ]
    assert {c.order for c in lost.curves} == {"least influential first"}
    for curve in left.curves:
        own = 1 - found.values[f"mif_accuracy_drop/{curve.rules}"]
        assert (curve.places, curve.values) == (LEVELS, pytest.approx(own.mean(0).tolist()))
    (plain, _) = precision.curves
    assert (plain.places, plain.order) == (SegmentationAP.recalls, "")
    known = found.values["segmentation_ap/plain"][4:, 1:]
    assert plain.values == pytest.approx(known.mean(0).tolist())
    for curve in (*left.curves, *lost.curves, *precision.curves):
        for low, value, high in zip(curve.lower, curve.values, curve.upper, strict=True):
            assert low < value < high


def test_a_band_is_the_interval_of_its_level():
    found = scores()
    first = replace(found, values={"lif_aopc/plain": found.values["lif_aopc/plain"]})
    ((curve,),) = (chart.curves for chart in curve_charts(first, RULES, LEVELS, "binary"))
    alone = bootstrap_interval(found.values["lif_aopc/plain"][:, 0])
    assert (curve.lower[0], curve.upper[0]) == pytest.approx(
        (float(alone.lower), float(alone.upper))
    )


def test_what_is_lost_of_a_quantity_is_no_probability():
    _, lost, _ = curve_charts(scores(), RULES, LEVELS, "regression")
    assert lost.title == "share of the output that is lost"


def test_differences_are_paired_over_the_images_that_both_have():
    found = scores()
    compared = differences(found, RULES, STATISTICS)
    by_metric = {d.metric: d for d in compared}
    assert list(by_metric) == [
        *("mif_accuracy_drop", "lif_aopc", "segmentation_ap", "completeness_error"),
    ]
    for metric, difference in by_metric.items():
        pair = [found.values[f"{metric}/{name}"] for name in ("libra", "plain")]
        expected = paired_bootstrap(*pair, statistic=STATISTICS[metric])
        assert (difference.rules, difference.baseline) == ("libra", "plain")
        assert difference.value == pytest.approx(float(expected.value))
        width = float(expected.upper - expected.lower)
        assert difference.upper - difference.lower == pytest.approx(width, rel=0.2)
    assert by_metric["completeness_error"].upper < 0 < by_metric["segmentation_ap"].lower


def test_a_few_images_have_no_interval_and_no_difference():
    found = scores(count=9, blank=0)
    charts = curve_charts(found, RULES, LEVELS, "multiclass")
    assert all(math.isnan(low) for chart in charts for c in chart.curves for low in c.lower)
    assert all(math.isfinite(v) for chart in charts for c in chart.curves for v in c.values)
    assert differences(found, RULES, STATISTICS) == []
    assert differences(scores(), ["libra"], STATISTICS) == []
    nothing = replace(found, values={"mif_aopc/plain": torch.full((9, 3), float("nan"))})
    assert curve_charts(nothing, RULES, LEVELS, "multiclass") == []


def test_every_rule_set_is_compared_with_the_first():
    found = scores()
    third = {f"{k.partition('/')[0]}/own": v for k, v in found.values.items() if "plain" in k}
    three = replace(found, values={**found.values, **third})
    compared = differences(three, ["plain", "libra", "own"], STATISTICS)
    assert [(d.metric, d.rules) for d in compared[:2]] == [
        ("mif_accuracy_drop", "libra"),
        ("mif_accuracy_drop", "own"),
    ]
    assert (compared[1].value, compared[1].lower, compared[1].upper) == (0, 0, 0)
    assert not compared[1].is_reliable
    assert compared[0].is_reliable
    drawn = comparison_figure([], compared, ["plain", "libra", "own"])
    sure = comparison_figure(
        [], [replace(d, is_reliable=True) for d in compared], ["plain", "libra", "own"]
    )
    assert drawn.shape[2] != sure.shape[2] or not torch.equal(drawn, sure)


def test_where_single_images_decide_there_is_no_band():
    found = scores()
    rare = torch.zeros(COUNT, len(LEVELS))
    rare[0] = 1
    charts = curve_charts(
        replace(found, values={"mif_accuracy_drop/plain": rare}), RULES, LEVELS, "multiclass"
    )
    ((curve,),) = (chart.curves for chart in charts)
    assert curve.values == pytest.approx([1 - 1 / COUNT] * len(LEVELS))
    assert all(math.isnan(end) for end in (*curve.lower, *curve.upper))


def test_the_figure_has_all_charts_at_the_width_at_which_loggers_show_it():
    found = scores()
    charts = curve_charts(found, RULES, LEVELS, "multiclass")
    compared = differences(found, RULES, STATISTICS)
    whole = comparison_figure(charts, compared, RULES)
    assert whole.dtype == torch.uint8
    assert 400 < whole.shape[2] < 460
    assert comparison_figure(charts[:2], [], RULES).shape[1] < whole.shape[1]
    assert comparison_figure([], [], RULES) is None
    assert len(found.keys) == COUNT
