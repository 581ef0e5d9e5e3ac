"""The history of audits: what is kept of each, and of the last."""

import pytest
import torch

from libragrad_lightning.audit import AuditHistory, AuditRecord, AuditResult

NAN = float("nan")


def result(*places):
    keys = [(place, label) for place in places for label in (0, 1)]
    maps = {"libra": {key: torch.full((1, 2), float(key[0])) for key in keys}}
    return AuditResult({key: 7 * key[0] for key in keys}, maps, nonfinite=1, seconds=3.0)


def test_values_that_are_missing_stay_gaps_only_where_there_was_a_value():
    history = AuditHistory()
    assert history.kept({"a": 1.0, "b": NAN}) == {"a": 1.0}
    history.add(AuditRecord(0, 1, {"a": 1.0}, 1.0, 2), AuditResult())
    assert str(history.kept({"a": NAN, "b": NAN, "c": 0.0})) == str({"a": NAN, "c": 0.0})


@pytest.mark.parametrize(
    ("epoch", "weights", "expected"),
    [
        (0, "initial", "at the start"),
        (4, "final", "at the end"),
        (3, "current", "epoch 3, step 9"),
        (None, "current", "weights as given"),
        (3, "averaged", "averaged, epoch 3"),
        (3, "best.ckpt", "best.ckpt, epoch 3"),
        (None, "best.ckpt", "best.ckpt"),
    ],
)
def test_which_weights_were_explained_in_words(epoch, weights, expected):
    assert AuditRecord(epoch, 9, {}, 1.0, 2, weights).when == expected


def test_images_are_those_of_the_last_audit():
    history = AuditHistory()
    assert history.probe_ids() == []
    history.add(AuditRecord(0, 1, {}, 1.0, 2), result(4, 2))
    assert history.probe_ids() == [4, 2]
    assert history.changed({(4, 0): 28, (2, 1): 0, (9, 0): 1}) == {(2, 1)}
    assert history.last.samples == 1


def test_a_history_comes_back_from_a_checkpoint():
    history, loaded = AuditHistory(), AuditHistory()
    records = [
        AuditRecord(0, 1, {"a": 1.0}, 1.5, 2, "initial", "zero_tokens", 0.5),
        AuditRecord(1, 2, {"a": 2.0}, 2.5, 3),
    ]
    history.add(records[0], result(1))
    history.add(records[1], result(4, 2))
    kept = loaded.records
    loaded.load_state_dict(history.state_dict())
    assert loaded.records is kept
    assert loaded.records == records
    assert loaded.last.fingerprints == history.last.fingerprints
    assert torch.equal(loaded.last.maps["libra"][4, 1], torch.full((1, 2), 4.0))
    loaded.begin_anew()
    assert (loaded.records, loaded.last) == ([], AuditResult())
    assert len(history.records) == 2
