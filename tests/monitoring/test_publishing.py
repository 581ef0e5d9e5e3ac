"""What becomes of a finished audit: its record, and what the user is told of it."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from config_cases import config
from torch import nn

from libragrad_lightning.audit import (
    DEFAULT_METRICS,
    AuditRecord,
    AuditResult,
    probe_request,
)
from libragrad_lightning.diagnosis.coverage import CoverageReport, OperationUse
from libragrad_lightning.monitoring.notices import Notices
from libragrad_lightning.monitoring.publishing import Publisher, costs
from libragrad_lightning.monitoring.weights import ExplainedWeights
from libragrad_lightning.reporting import Pictures

NAN = float("nan")


def publisher(count=2, **arguments):
    return Publisher(config(**arguments), Pictures(), count, Notices(), "audit")


def a_trainer(tmp_path, fn="fit", epoch=3, step=7, **others):
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=step))
    given = {"loggers": [], "is_global_zero": True, "fast_dev_run": False, "datamodule": None}
    given |= {"world_size": 1}
    given |= {"lightning_module": None} | others
    return SimpleNamespace(
        state=SimpleNamespace(fn=fn),
        current_epoch=epoch,
        fit_loop=loop,
        default_root_dir=str(tmp_path),
        **given,
    )


def found(count=4, shift=0, **others):
    keys = [(place, -1) for place in range(count)]
    maps = {"libra": {key: torch.zeros(1, 2) for key in keys}}
    prints = {key: 10 * shift + key[0] for key in keys}
    return AuditResult(prints, maps, seconds=1.5, perturbation="zero_tokens", **others)


def said(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, [str(warning.message) for warning in caught]


def recorded(tmp_path, made, result, measured, fn="fit", task="multiclass"):
    weights = ExplainedWeights()
    weights.epoch = 3
    return said(lambda: made.record(a_trainer(tmp_path, fn), result, measured, task, weights))


def test_a_record_holds_what_was_measured_and_what_it_cost(tmp_path):
    made, result = publisher(), found(peak_memory_gib=0.5, nonfinite=0)
    measured = {"srg/libra": 0.25, "accuracy": NAN}
    record, warned = recorded(tmp_path, made, result, measured)
    assert record == AuditRecord(3, 7, {"srg/libra": 0.25}, 1.5, 4, "current", "zero_tokens", 0.5)
    assert warned == []
    assert made.history.records == [record]
    assert made.history.last is result
    again, _ = recorded(tmp_path, made, result, {"srg/libra": NAN, "accuracy": 0.5})
    assert str(again.values) == str({"srg/libra": NAN, "accuracy": 0.5})
    assert costs(record, False) == {"seconds": 1.5, "peak_memory_gib": 0.5}
    plain = AuditRecord(0, 0, {}, 2.5, 4)
    assert costs(plain, True) == {"seconds": 2.5, "samples": 4.0}
    rounded, _ = recorded(tmp_path, made, found(deletion_rounding=0.25), measured)
    assert costs(rounded, False) == {"seconds": 1.5, "deletion_rounding": 0.25}


@pytest.mark.parametrize("fn", ["test", "validate"])
def test_an_audit_outside_of_a_fit_is_in_the_history_and_compared_with_nothing(tmp_path, fn):
    made, result, other = publisher(), found(), found(shift=1)
    recorded(tmp_path, made, result, {"srg/libra": 0.25})
    record, warned = recorded(tmp_path, made, other, {"srg/libra": NAN}, fn)
    assert record.values == {}
    assert warned == []
    assert made.history.records[-1] is record
    assert made.history.last is (result if fn == "test" else other)


def test_other_images_in_the_same_places_are_told_once(tmp_path):
    made = publisher()
    recorded(tmp_path, made, found(), {})
    _, (warning,) = recorded(tmp_path, made, found(shift=1), {})
    assert "other images than before in 4 of 4 places" in warning
    assert recorded(tmp_path, made, found(3, shift=2), {})[1] == []


@pytest.mark.parametrize(("count", "nonfinite", "warns"), [(1, 0, True), (2, 1, False)])
def test_named_images_that_were_not_there(tmp_path, count, nonfinite, warns):
    made = publisher(request=probe_request([0, 1], 8, 0))
    _, warned = recorded(tmp_path, made, found(count, nonfinite=nonfinite), {})
    missing = [w for w in warned if "that `probe` names" in w]
    assert bool(missing) is warns
    assert all("found 1 of the 2 images" in w for w in missing)


def test_images_and_maps_that_do_not_count_are_told(tmp_path):
    result = found(nonfinite=1, uninformative={"plain": 1, "libra": 3})
    _, warned = recorded(tmp_path, publisher(), result, {})
    assert [w.partition(" of 4")[0] for w in warned] == [
        "LibraGradAudit leaves out 1",
        "LibraGradAudit does not score maps that are the same everywhere (3",
    ]
    assert "(3 of 4 under libra)" in warned[1]


@pytest.mark.parametrize(("error", "warns"), [(0.01, False), (0.011, True), (NAN, False)])
def test_attributions_that_do_not_add_up_are_told(tmp_path, error, warns):
    measured = {"relative_completeness_error/libra": error}
    _, warned = recorded(tmp_path, publisher(), found(), measured)
    assert bool(warned) is warns
    assert all("do not add up" in w for w in warned)


@pytest.mark.parametrize("asked", [True, False])
def test_metrics_without_a_value_are_warned_of_if_they_were_asked_for(tmp_path, asked, caplog):
    made = publisher(metrics=["segmentation_ap", "energy_inside"] if asked else None)
    measured = {f"{name}/libra": 0.001 for name in DEFAULT_METRICS}
    measured |= {"segmentation_ap/libra": NAN, "energy_inside/libra": NAN}
    with caplog.at_level("INFO"):
        _, warned = recorded(tmp_path, made, found(), measured)
    sentence = (
        "LibraGradAudit has no value for `segmentation_ap`, `energy_inside`, which needs object "
        "masks, and the validation batches have none that count."
    )
    assert warned == ([sentence] if asked else [])
    assert (sentence in caplog.messages) is not asked


class Named(nn.Module):
    class_names = ("a",)


def test_pictures_are_drawn_where_they_can_be_written(tmp_path):
    trainer = a_trainer(tmp_path, lightning_module=Named())
    made = publisher()
    made.start(trainer)
    assert made.drawer(trainer).count == 2
    assert made.drawer(trainer).pictures.class_names == ["a"]
    assert made.drawer(trainer, 0).count == 0
    assert made.drawer(a_trainer(tmp_path, is_global_zero=False)).count == 0
    assert publisher(0).drawer(trainer).count == 0


def test_the_worst_and_the_best_are_looked_for_where_all_images_are_seen(tmp_path):
    made, module = publisher(), Named()
    alone, shared = (a_trainer(tmp_path, lightning_module=module, world_size=n) for n in (1, 2))
    assert made.drawer(alone).extremes is not None
    assert made.drawer(shared).extremes is None
    assert made.drawer(alone, 2).extremes is None


def test_a_folder_that_cannot_be_written_is_told_and_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    trainer, made = a_trainer(tmp_path / "file" / "logs"), publisher()
    _, (warning,) = said(lambda: made.start(trainer))
    assert "cannot write pictures to" in warning
    assert made.drawer(trainer).count == 0
    recorded(tmp_path, made, found(), {"srg/libra": 0.5})
    assert said(lambda: made.write_history(trainer))[1] == []


def test_rules_of_operations_are_written_where_they_can_be(tmp_path):
    report = CoverageReport("libra", (OperationUse("GeluBackward0", "activation", 1, 0, ("a",)),))
    made = publisher()
    made.write_coverage(a_trainer(tmp_path), [report])
    (text,) = tmp_path.rglob("*.md")
    assert text.relative_to(tmp_path).as_posix() == "audit/coverage/libra/00000007.md"
    assert "GeluBackward0" in text.read_text()
    (tmp_path / "file").write_text("")
    trainer = a_trainer(tmp_path / "file" / "logs")
    said(lambda: made.start(trainer))
    assert said(lambda: made.write_coverage(trainer, [report]))[1] == []


def test_files_that_fail_later_are_told_and_done_without(tmp_path):
    folder = tmp_path / "logs"
    trainer, made = a_trainer(folder), publisher()
    made.start(trainer)
    recorded(tmp_path, made, found(), {"srg/libra": 0.5})
    made.write_history(trainer)
    (table,) = folder.rglob("*.csv")
    assert "srg/libra" in table.read_text()
    table.unlink()
    table.parent.rmdir()
    table.parent.write_text("in the way")
    _, (warning,) = said(lambda: made.write_history(trainer))
    assert "cannot write its pictures and tables" in warning
    assert said(lambda: made.write_history(trainer))[1] == []
    assert made.drawer(trainer).count == 0
