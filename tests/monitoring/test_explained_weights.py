"""Which weights are in a module at the moment."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, StochasticWeightAveraging
from torch import nn

from libragrad_lightning.monitoring.weights import (
    ExplainedWeights,
    fingerprint,
    half_dtype,
    training_is_over,
)


def a_trainer(module, fn="fit", epoch=0, callbacks=(), checkpoint=None):
    return SimpleNamespace(
        state=SimpleNamespace(fn=fn),
        strategy=SimpleNamespace(model=None),
        lightning_module=module,
        current_epoch=epoch,
        callbacks=list(callbacks),
        ckpt_path=checkpoint,
    )


def averaging(last):
    """Weight averaging whose last epoch of training is that one."""
    callback = StochasticWeightAveraging(0.1, swa_epoch_start=1)
    callback._max_epochs = last + 1
    assert callback.swa_end == last
    return callback


def changed(module, value=1.0):
    with torch.no_grad():
        module.bias[0] += value
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_fingerprint_changes_with_every_parameter(dtype):
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)).to(dtype)
    before = fingerprint(module)
    assert len(before) == 4
    assert before == fingerprint(module)
    for i, parameter in enumerate(module.parameters()):
        parameter.data[0] += 1
        after = fingerprint(module)
        assert [a != b for a, b in zip(before, after, strict=True)] == [j == i for j in range(4)]
        before = after


def test_fingerprints_of_odd_modules():
    module = nn.Linear(2, 1)
    module.weight.data[0, 0] = float("nan")
    assert fingerprint(module) == fingerprint(module)
    assert fingerprint(nn.Identity()) == []
    assert fingerprint(nn.Sequential(nn.LazyLinear(3), nn.Linear(1, 1))) != []


@pytest.mark.parametrize("label", ["current", "initial", "final"])
def test_weights_that_were_exchanged_are_averaged(label):
    module = nn.Linear(2, 2)
    for exchanged in (False, True):
        weights = ExplainedWeights()
        weights.begin(a_trainer(module), label)
        if exchanged:
            changed(module)
        weights.explain(a_trainer(module))
        averaged = exchanged and label == "current"
        assert weights.label == ("averaged" if averaged else label)
        assert weights.are_explained == (not exchanged)


def test_the_last_audit_is_remembered_until_another_run_begins():
    module, weights = nn.Linear(2, 2), ExplainedWeights()
    assert weights.label == "current"
    weights.begin(a_trainer(module))
    assert not weights.are_explained
    weights.explain(a_trainer(module))
    weights.begin(a_trainer(module), "final")
    assert weights.are_explained
    weights.begin(a_trainer(changed(module)), "final")
    assert not weights.are_explained
    weights.begin(a_trainer(changed(module, -1.0)))
    assert weights.are_explained
    weights.forget()
    assert not weights.are_explained


def test_a_validation_outside_of_a_fit_is_not_remembered():
    module, weights = nn.Linear(2, 2), ExplainedWeights()
    weights.begin(a_trainer(module))
    changed(module)
    weights.explain(a_trainer(module, "validate"))
    assert weights.label == "current"
    weights.begin(a_trainer(module))
    assert not weights.are_explained


def test_the_epoch_is_that_of_the_weights():
    module, weights = nn.Linear(2, 2), ExplainedWeights()

    def explained(fn, epoch, **given):
        weights.begin(a_trainer(module))
        weights.explain(a_trainer(module, fn, epoch, **given))
        return weights.label, weights.epoch

    assert explained("fit", 3) == ("current", 3)
    assert explained("validate", 4) == ("current", 3)
    assert explained("test", 0) == ("current", None)
    assert explained("test", 4, checkpoint="runs/best.ckpt") == ("best.ckpt", None)
    weights.load(2)
    assert explained("validate", 4, checkpoint="runs/best.ckpt") == ("best.ckpt", 2)
    weights.forget()
    assert explained("validate", 4, checkpoint="runs/best.ckpt") == ("best.ckpt", None)


def test_stochastic_weight_averaging_ends_before_its_last_epoch():
    module = nn.Linear(2, 2)
    for epoch, over in ((2, False), (3, False), (4, True)):
        callbacks = [EarlyStopping("loss"), averaging(3)]
        assert training_is_over(a_trainer(module, epoch=epoch, callbacks=callbacks)) == over
        weights = ExplainedWeights()
        weights.begin(a_trainer(module))
        weights.explain(a_trainer(module, epoch=epoch, callbacks=callbacks))
        assert weights.label == ("averaged" if over else "current")
    assert not training_is_over(a_trainer(module, epoch=9))


def test_half_precision():
    assert half_dtype(nn.Linear(1, 1)) is None
    for dtype in (torch.float16, torch.bfloat16):
        assert half_dtype(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).to(dtype))) is dtype
