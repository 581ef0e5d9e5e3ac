"""Of which images of the probe set attributions are added up for the logit."""

import pytest
from config_cases import config
from torchmetrics import MeanMetric

from libragrad_lightning.audit import Deletion, images_added_up, probe_request
from libragrad_lightning.audit.completeness import sums_of


class Total(MeanMetric):
    def update(self, attribution_total, logit):
        super().update(attribution_total - logit)


def sized(size, **changes):
    return config(request=probe_request("first", size, 0), **changes)


def test_as_many_images_as_take_two_percent_of_the_passes_and_at_least_8():
    # Per image: a forward pass, a backward pass for each rule set, and what deletion leaves.
    assert images_added_up(sized(64)) == 14  # 0.02 * 64 * (1 + 2 + 2 * 2 * 4.5) / 2
    assert images_added_up(sized(1000)) == 210
    assert images_added_up(sized(4)) == 8
    assert images_added_up(sized(1000, rules="libra")) == 220
    assert images_added_up(sized(1000, deletion=Deletion(levels=(0.5,)))) == 50
    assert images_added_up(sized(1000, metrics="completeness_error")) == 30
    named = config(request=probe_request(list(range(50)), 8, 0), completeness_on="all")
    assert images_added_up(named) == 50


@pytest.mark.parametrize(
    ("changes", "first", "others"),
    [
        ({}, ("reward", "logit"), ("reward",)),
        ({"metrics": ["srg", "segmentation_ap"]}, (), ()),
        ({"metrics": "completeness_error"}, ("logit",), ()),
        ({"metrics": "relative_completeness_error"}, ("logit",), ()),
        ({"metrics": "reward_completeness_error"}, ("reward",), ("reward",)),
        ({"metrics": "completeness_error", "reward": "logit"}, ("logit",), ("logit",)),
        ({"metrics": [Total()]}, ("logit",), ("logit",)),
    ],
)
def test_nothing_is_added_up_that_no_metric_reads(changes, first, others):
    found = config(**changes)
    assert sums_of(found, "multiclass", True) == first
    assert sums_of(found, "multiclass", False) == others


def test_the_log_odds_of_a_label_are_its_logit():
    assert sums_of(config(), "multilabel", False) == ("reward", "logit")
