"""Tables of classes, of the best and the worst images, and of all images."""

from dataclasses import replace

import torch
from score_cases import COUNT, RULES, STATISTICS, scores

from libragrad_lightning.reporting.score_tables import (
    class_table,
    extremes_table,
    main_metrics,
    scores_table,
)
from libragrad_lightning.reporting.summary import number


def test_a_class_has_the_means_of_its_images():
    found = scores()
    table = class_table(found, RULES, STATISTICS, ["ant", "bee"])
    assert table.columns[:5] == (
        *("class", "images", "accuracy"),
        *("segmentation ap ↑ plain", "segmentation ap ↑ libra"),
    )
    assert [row[:3] for row in table.rows] == [("ant", 8, "0.500"), ("bee", 8, "0.500")]
    own = (found.classes == 1) & found.values["segmentation_ap/libra"][:, 0].isfinite()
    expected = found.values["segmentation_ap/libra"][own, 0].mean()
    assert table.rows[1][4] == number(float(expected))


def test_classes_without_names_have_numbers_and_one_class_has_no_table():
    found = scores()
    assert class_table(found, RULES, STATISTICS, None).rows[1][0] == "class_1"
    one = replace(found, classes=torch.zeros(COUNT, dtype=torch.int64))
    assert class_table(one, RULES, STATISTICS, None) is None


def test_of_many_classes_those_with_most_images_are_shown():
    found = scores(count=100)
    many = replace(found, classes=torch.arange(100).clamp(max=60))
    rows = class_table(many, RULES, STATISTICS, None).rows
    assert len(rows) == 40
    assert (rows[-1][0], rows[-1][1]) == ("class_60", 40)


def test_the_main_metrics_come_first_and_are_few():
    assert main_metrics(scores()) == ["segmentation_ap", "lif_aopc", "mif_accuracy_drop"]


def test_the_worst_image_is_told_from_the_best_whichever_way_is_better():
    found = scores()
    drop = found.values["lif_aopc/plain"]
    drop[5], drop[9] = 0.9, -0.9
    rows = extremes_table(found, RULES, STATISTICS, {(35, -1): "audit/image_005/ant"}).rows
    by_key = {row[:2]: row[2:] for row in rows}
    assert by_key["lif aopc ↓", "plain"] == (
        "audit/image_005/ant: 0.900",
        "image 63 of the loader: -0.900",
    )
    values = found.values["segmentation_ap/libra"][:, 0]
    worst = 4 + int(values[4:].argmin())
    expected = f"image {7 * worst} of the loader: {number(float(values[worst]))}"
    assert by_key["segmentation ap ↑", "libra"][0] == expected


def test_every_image_has_a_row_with_all_that_is_known_of_it():
    found = scores()
    table = scores_table(found, STATISTICS)
    assert len(table.rows) == COUNT
    column = table.columns.index("segmentation_ap/libra")
    assert [row[column] for row in table.rows[:4]] == [None] * 4
    assert table.rows[5][column] == float(found.values["segmentation_ap/libra"][5, 0])
    assert table.rows[5][:3] == (35, 1, 1.0)
