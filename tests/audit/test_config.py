"""Arguments of an audit become its configuration, or one sentence."""

import pytest
from config_cases import config
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from libragrad_lightning.attribution import METHODS, log_odds, logit
from libragrad_lightning.audit import (
    DEFAULT_METRICS,
    AuditError,
    Deletion,
    changed_settings,
    grouped,
    probe_request,
)
from libragrad_lightning.backward import ATTN_LRP, LIBRA, PLAIN
from libragrad_lightning.perturbation import LEVELS


def test_the_defaults():
    found = config()
    assert found.rules == (PLAIN, LIBRA)
    assert found.rule_names == ["plain", "libra"]
    assert found.method is METHODS["fullgrad_plus"]
    assert (found.metrics, found.asked, found.own_metrics) == (DEFAULT_METRICS, False, ())
    assert (found.levels, found.perturbation) == (tuple(LEVELS), "tokens")
    assert (found.blocks, found.backbone, found.in_float32) == (None, None, True)
    assert "deletion" in found.needs


def test_one_thing_may_stand_for_a_list():
    own = MulticlassAccuracy(3)
    assert config(rules="libra").rules == (LIBRA,)
    assert config(rules=ATTN_LRP).rules == (ATTN_LRP,)
    assert config(blocks="net.blocks").blocks == ("net.blocks",)
    assert config(blocks=["a", "b"]).blocks == ("a", "b")
    assert config(metrics="srg").metrics == ("srg",)
    found = config(metrics=[own, "srg"])
    assert (found.metrics, found.own_metrics, found.asked) == (("srg",), (own,), True)
    assert found.logged_names == ["srg", "MulticlassAccuracy"]
    assert config(metrics=own).own_metrics == (own,)


class Drop(MeanMetric):
    def update(self, mif_logits, target):
        super().update(mif_logits[range(len(target)), :, target])


class Groups(MeanMetric):
    def update(self, group_logits, salience):
        super().update(group_logits.mean() + salience.mean())


@pytest.mark.parametrize(
    ("metrics", "needed"),
    [
        ("srg", {"deletion"}),
        ("saco", {"groups"}),
        (["completeness_error", "mif_aopc", "saco"], {"deletion", "groups"}),
        (["completeness_error", "segmentation_ap", "drift_rank"], set()),
        ([], set()),
        (MulticlassAccuracy(3), set()),
        (Drop(), {"deletion"}),
        (Groups(), {"groups"}),
    ],
)
def test_patches_are_deleted_only_for_metrics_that_need_it(metrics, needed):
    assert config(metrics=metrics).needs & {"deletion", "groups"} == needed


def test_half_precision_and_functions():
    assert not config(precision="module").in_float32
    assert config(reward="logit").reward == "logit"
    assert config(reward=log_odds).reward is log_odds


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rules": []}, "nothing to explain with; `rules` needs at least one"),
        ({"rules": "none"}, "Unknown rule set 'none'"),
        ({"task": "detection"}, "does not know 'detection'; `task` takes one of"),
        ({"target": "best"}, "does not know 'best'; `target` takes one of"),
        ({"method": "magic"}, "Unknown method 'magic'"),
        ({"reward": "loss"}, "Unknown reward 'loss'"),
        ({"precision": "half"}, "does not know 'half'; `precision` takes one of"),
        ({"completeness_on": "none"}, "does not know 'none'; `completeness_on` takes one of"),
        ({"batch_size": 0}, "`batch_size` of at least 1 but got 0"),
        ({"metrics": ["srg", "iou"]}, r"does not know the metrics \['iou'\]"),
        ({"deletion": Deletion("holes")}, "does not know 'holes'; `perturbation` takes"),
        ({"deletion": Deletion(precision="half")}, "`deletion.precision` takes one of"),
        ({"deletion": Deletion(levels=(1.5,))}, "`levels` must be fractions"),
        ({"metrics": "deletion_auc", "deletion": Deletion(levels=(0.5,))}, "cannot measure"),
    ],
)
def test_arguments_that_cannot_work(changes, said):
    with pytest.raises(AuditError, match=said):
        config(**changes)


def test_the_state_says_what_curves_depend_on():
    assert config().state() == {
        "probe": "first",
        "max_samples": 8,
        "dataloader_idx": 0,
        "forward": None,
        "task": "auto",
        "rules": ["plain", "libra"],
        "method": "fullgrad_plus",
        "reward": "log_odds",
        "target": "predicted",
        "levels": [float(level) for level in LEVELS],
        "perturbation": "tokens",
        "blocks": None,
        "backbone": None,
        "completeness_on": "some",
        "deletes_in_bfloat16": False,
    }
    request = probe_request([7, 3], 8, 2)
    other = config(
        request=request, reward=logit, forward="net", blocks=["a"], backbone="b", target=3
    ).state()
    assert (other["probe"], other["dataloader_idx"], other["reward"]) == ([7, 3], 2, "logit")
    assert (other["forward"], other["blocks"], other["backbone"]) == ("net", ["a"], "b")
    assert changed_settings(config().state(), config(target=3).state()) == [
        'target ("predicted" -> 3)'
    ]
    assert changed_settings(other, other) == []
    assert changed_settings({}, {"target": None, "rules": []}) == ["rules (null -> [])"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("last", 8, 0), "does not know 'last'; `probe` takes one of"),
        (([], 8, 0), r"`probe` to be 'first', 'stratified' or a list .* but got \[\]"),
        (([1, -1], 8, 0), "list of different places"),
        (([1, 1], 8, 0), "list of different places"),
        (("first", 0, 0), "`max_samples` of at least 1 but got 0"),
        (("first", 1, -1), "`dataloader_idx` of at least 0 but got -1"),
    ],
)
def test_probe_sets_that_cannot_be(arguments, said):
    with pytest.raises(AuditError, match=said):
        probe_request(*arguments)


def test_places_count_from_zero_and_the_least_probe_set_is_one_image():
    assert probe_request([0, 2], 1, 0).probe == (0, 2)
    assert probe_request("stratified", 1, 3).dataloader_idx == 3


def test_groups_of_arguments():
    deletion = Deletion("zero_tokens")
    assert grouped(Deletion, deletion, "deletion") is deletion
    assert grouped(Deletion, {"perturbation": "zero_tokens"}, "deletion") == deletion
    with pytest.raises(AuditError, match=r"no \['level'\] in `deletion`; it takes"):
        grouped(Deletion, {"level": 1, "levels": (0.5,)}, "deletion")
    with pytest.raises(AuditError, match="`deletion` to be a `Deletion"):
        grouped(Deletion, "zero_tokens", "deletion")
