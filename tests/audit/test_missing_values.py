"""Why a metric that was asked for has no value."""

from libragrad_lightning.audit import reasons_for_missing
from libragrad_lightning.audit.measurement import correctness_name

NAN = float("nan")


def test_every_metric_without_a_value_has_its_reason():
    names = ["drift_rank", "srg", "segmentation_ap", "mif_aopc", "completeness_error"]
    values = {"srg/libra": NAN, "completeness_error/libra": 0.5, "completeness_error/plain": NAN}
    found = reasons_for_missing(names, values, "regression")
    assert found == {
        "srg": "is not defined for regression tasks",
        "segmentation_ap": "needs object masks, and the validation batches have none that count",
        "mif_aopc": "has no image with a finite map that tells patches apart",
    }
    assert list(reasons_for_missing(names, values, "multiclass")) == [
        "srg",
        "segmentation_ap",
        "mif_aopc",
    ]
    assert reasons_for_missing(["srg"], {"srg/plain": 0.0}, "multiclass") == {}


def test_how_right_a_model_is_has_the_name_of_its_task():
    assert correctness_name("regression") == "mean_absolute_error"
    assert {correctness_name(t) for t in ("multiclass", "binary", "multilabel")} == {"accuracy"}
