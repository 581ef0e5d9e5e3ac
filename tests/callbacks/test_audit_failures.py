"""What goes wrong in an audit does no harm to the run."""

import warnings

import lightning as L
import pytest
import torch
from audit_cases import Classifier, assert_same, digest, loader, quick_audit, trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from libragrad_lightning.audit import metric_table
from libragrad_lightning.audit import run as audit_run
from libragrad_lightning.callbacks import Samples
from libragrad_lightning.metrics import CompletenessError
from libragrad_lightning.reporting import panels, sinks

pytestmark = pytest.mark.rotating

PLACES = ("forward", "backward", "metric", "compute", "rendering", "logger")


class PlantedError(Exception):
    pass


def fail(*_, **__):
    raise PlantedError("planted")


class FailingPart(nn.Module):
    """Fails where only an explanation goes: in evaluation mode with gradients."""

    def __init__(self, part, place):
        super().__init__()
        self.part, self.place, self.armed = part, place, False

    def forward(self, x):
        y = self.part(x)
        if self.armed and not self.training and torch.is_grad_enabled():
            if self.place == "forward":
                fail()
            elif self.place == "backward" and y.requires_grad:
                y.register_hook(fail)
        return y


class Plant(Callback):
    """Plants an error when training begins, behind the look at the model before it."""

    def __init__(self, place, monkeypatch):
        self.place, self.monkeypatch = place, monkeypatch

    def on_train_start(self, trainer, pl_module):
        pl_module.net.blocks[1].mlp.armed = True
        if self.place == "metric":
            self.monkeypatch.setattr(CompletenessError, "update", fail)
        elif self.place == "compute":
            self.monkeypatch.setattr(metric_table.MetricEntry, "value", fail)
        elif self.place == "rendering":
            self.monkeypatch.setattr(panels, "share_panel", fail)
        elif self.place == "logger":
            self.monkeypatch.setattr(sinks, "add_picture", fail)


class Stop(Callback):
    """Ends a run where an audit would."""

    def __init__(self, hook):
        setattr(self, hook, fail)


def run_with(path, place, callbacks):
    L.seed_everything(7)
    module = Classifier()
    module.net.blocks[1].mlp = FailingPart(module.net.blocks[1].mlp, place)
    run = trainer(path, callbacks, max_epochs=2, enable_checkpointing=False)
    run.fit(module, loader(shuffle=True, count=16), loader(count=16))
    module.net.blocks[1].mlp.armed = False
    return run, module


@pytest.mark.parametrize("place", PLACES)
def test_with_warn_the_run_completes_and_is_the_same(tmp_path, place, monkeypatch):
    callback = quick_audit(on_error="warn")
    with pytest.warns(UserWarning, match="gave up an audit .*planted.*`on_error='raise'`"):
        audited = run_with(tmp_path, place, [callback, Plant(place, monkeypatch)])
    assert audited[0].current_epoch == 2
    assert len(callback.history) == (2 if place == "logger" else 0)
    assert_same(digest(*audited), digest(*run_with(tmp_path, place, [])))


@pytest.mark.parametrize("place", PLACES)
def test_with_raise_the_run_ends_as_it_was(tmp_path, place, monkeypatch):
    digests = []
    late = place in ("compute", "logger")
    stop = Stop("on_validation_epoch_end" if late else "on_validation_batch_end")
    for callbacks in ([Plant(place, monkeypatch), quick_audit()], [Start(stop)]):
        L.seed_everything(7)
        module = Classifier()
        module.net.blocks[1].mlp = FailingPart(module.net.blocks[1].mlp, place)
        run = trainer(tmp_path, callbacks, enable_checkpointing=False)
        with pytest.raises(PlantedError):
            run.fit(module, loader(shuffle=True, count=16), loader(count=16, batch_size=16))
        module.net.blocks[1].mlp.armed = False
        digests.append(digest(run, module))
    assert_same(*digests)


class Start(Callback):
    """Adds a callback when training begins, behind the sanity check."""

    def __init__(self, callback):
        self.callback = callback

    def on_train_start(self, trainer, pl_module):
        trainer.callbacks.append(self.callback)


def limit_memory(monkeypatch, images, wrapped=False):
    """Let explanations of more images at once run out of memory."""
    explain = audit_run.explain_methods

    def limited(model, shown, *args, **kwargs):
        if len(shown) > images:
            error = torch.OutOfMemoryError("planted")
            if wrapped:
                raise ValueError("planted around it") from error
            raise error
        return explain(model, shown, *args, **kwargs)

    monkeypatch.setattr(audit_run, "explain_methods", limited)


def test_out_of_memory_halves_the_chunk_once_per_size(tmp_path, monkeypatch):
    whole = quick_audit(max_samples=8, num_images=0)
    run_with(tmp_path, "nowhere", [whole])
    limit_memory(monkeypatch, 2)
    callback = quick_audit(max_samples=8, num_images=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_with(tmp_path, "nowhere", [callback])
    said = [str(w.message) for w in caught if "ran out of memory" in str(w.message)]
    assert [s.split("with ")[1].split(" images")[0] for s in said] == ["8", "4"]
    assert "pass `batch_size=2`" in said[1]
    for first, second in zip(callback.history, whole.history, strict=True):
        assert first.values == pytest.approx(second.values, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("on_error", "wrapped"), [("raise", False), ("warn", False), ("raise", True)]
)
def test_out_of_memory_never_ends_the_run(tmp_path, monkeypatch, on_error, wrapped):
    limit_memory(monkeypatch, 0, wrapped)
    callback = quick_audit(on_error=on_error)
    with pytest.warns(UserWarning, match=r"gave up an audit \((OutOfMemory|Value)Error"):
        audited = run_with(tmp_path, "nowhere", [callback])
    assert callback.history == []
    monkeypatch.undo()
    assert_same(digest(*audited), digest(*run_with(tmp_path, "nowhere", [])))


def test_a_probe_set_that_a_failure_cut_short_is_collected_again(tmp_path):
    fails = [False, False, True]  # in the sanity check, and in the second batch of the first epoch

    def unpack(batch):
        if fails and fails.pop(0):
            raise PlantedError("planted")
        return Samples(None, batch[1], batch[2])

    callback = quick_audit(max_samples=12, unpack=unpack, on_error="warn")
    run = trainer(tmp_path, [callback], max_epochs=2, num_sanity_val_steps=1)
    with pytest.warns(UserWarning, match="gave up an audit .*planted"):
        run.fit(Classifier(), loader(count=16), loader(count=16))
    assert [(record.epoch, record.samples) for record in callback.history] == [(1, 12)]
