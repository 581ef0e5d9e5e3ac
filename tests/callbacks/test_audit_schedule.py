"""When a fit is audited, how much of it audits may take, and where that is written."""

import csv
from pathlib import Path

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from audit_cases import Classifier, loader, quick_audit, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.rotating


def fit(path, callback, callbacks=(), **kwargs):
    """Three epochs of two steps."""
    L.seed_everything(7)
    defaults = {
        "max_epochs": 3,
        "num_sanity_val_steps": 0,
        "logger": CSVLogger(path, flush_logs_every_n_steps=1),
    }
    run = trainer(path, [callback, *callbacks], **(defaults | kwargs))
    run.fit(Classifier(), loader(count=16), loader(count=16))
    return run


def steps(callback):
    """Where the loggers have the audits: Lightning counts its batches from 0."""
    return [record.step for record in callback.history]


def logged(run, key="audit/srg/libra"):
    with (Path(run.logger.log_dir) / "metrics.csv").open() as file:
        return {int(row["step"]): float(row[key]) for row in csv.DictReader(file) if row[key]}


@pytest.mark.parametrize(
    ("kwargs", "sanity_steps", "expected"),
    [
        ({}, 0, [1, 3, 5]),
        ({"every_n_epochs": 2}, 0, [1, 5]),
        ({"every_n_train_steps": 1}, -1, [0, 1, 2, 3, 4, 5]),
        ({"every_n_train_steps": 4}, -1, [3]),
        ({"at_start": True}, -1, [0, 1, 3, 5]),
        ({"at_end": True}, 0, [1, 3, 5]),  # the last validation has seen these weights
        ({"every_n_train_steps": 4, "at_end": True}, -1, [3, 6]),
    ],
)
def test_audits_run_when_they_are_due(tmp_path, kwargs, sanity_steps, expected):
    callback = quick_audit(num_images=0, **kwargs)
    run = fit(tmp_path, callback, num_sanity_val_steps=sanity_steps)
    assert steps(callback) == expected
    values = [record.values["srg/libra"] for record in callback.history]
    assert logged(run) == pytest.approx(dict(zip(expected, values, strict=True)))


def test_steps_count_from_the_first_validation_without_a_sanity_check(tmp_path):
    callback = quick_audit(every_n_train_steps=1)
    with pytest.warns(UserWarning, match="begins after the first validation"):
        fit(tmp_path, callback)
    assert steps(callback) == [2, 3, 4, 5]


def test_steps_are_optimizer_steps_and_can_be_monitored(tmp_path):
    callback = quick_audit(every_n_train_steps=1)
    checkpoint = ModelCheckpoint(tmp_path, monitor="audit/srg/libra", every_n_train_steps=1)
    kwargs = {"accumulate_grad_batches": 2, "num_sanity_val_steps": -1}
    fit(tmp_path, callback, [checkpoint], **kwargs)
    assert steps(callback) == [0, 1, 2]
    assert float(checkpoint.best_model_score) == pytest.approx(
        min(record.values["srg/libra"] for record in callback.history)
    )


def test_runs_without_a_sanity_check_may_have_an_audit_at_the_start(tmp_path):
    tried, first, resumed = (quick_audit(num_images=0, at_start=True) for _ in range(3))
    fit(tmp_path, tried, fast_dev_run=True)
    assert len(tried.history) == 1
    fit(tmp_path, first, num_sanity_val_steps=-1, max_epochs=1).save_checkpoint(tmp_path / "a.ckpt")
    run = trainer(tmp_path, [resumed], max_epochs=2, num_sanity_val_steps=0, logger=False)
    run.fit(Classifier(), loader(count=16), loader(count=16), ckpt_path=tmp_path / "a.ckpt")
    assert [record.weights for record in resumed.history] == ["initial", "current", "current"]


def test_the_cost_of_every_audit_is_logged(tmp_path):
    callback = quick_audit()
    run = fit(tmp_path, callback)
    seconds = [record.seconds for record in callback.history]
    assert list(logged(run, "audit/seconds").values()) == pytest.approx(seconds)
    assert all(record.peak_memory_gib is None for record in callback.history)
    assert "audit/samples" not in run.callback_metrics


def test_an_audit_that_takes_too_long_shrinks_and_says_so(tmp_path):
    callback, checkpoint = (
        quick_audit(max_overhead=1e-4),
        ModelCheckpoint(tmp_path, monitor="audit/srg/libra"),
    )
    with pytest.warns(UserWarning, match=r"explains 1 images in place of 4.*`max_overhead`"):
        run = fit(tmp_path, callback, [checkpoint])
    assert [record.samples for record in callback.history] == [1]
    assert list(logged(run, "audit/samples").values()) == [1]
    assert checkpoint.best_model_score == callback.history[0].values["srg/libra"]


@pytest.mark.parametrize("schedule", [{}, {"every_n_train_steps": 1}])
def test_an_audit_for_which_there_is_no_time_is_postponed_and_that_is_said_once(
    tmp_path, recwarn, schedule
):
    callback = quick_audit(max_overhead=1e-4, **schedule)
    run = fit(tmp_path, callback, num_sanity_val_steps=-1)
    assert callback.history == []
    assert not any(key.startswith("audit/") for key in run.callback_metrics)
    said = [str(w.message) for w in recwarn if "postpones" in str(w.message)]
    assert len(said) == 1
    assert "pass a larger `max_overhead` than 0.0001" in said[0]
    callback = quick_audit(max_overhead=1e-4, at_end=True, **schedule)
    fit(tmp_path, callback, num_sanity_val_steps=-1)
    assert [record.weights for record in callback.history] == ["final"]


def test_an_audit_within_its_budget_stays_as_it_is(tmp_path):
    callback = quick_audit(max_overhead=1e6)
    fit(tmp_path, callback)
    assert [record.samples for record in callback.history] == [4, 4, 4]


class TwoOptimizers(Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(m.parameters(), 1e-3) for m in (self.net.blocks, self.net.head)]


@pytest.mark.parametrize("make", [Classifier, TwoOptimizers])
@pytest.mark.parametrize(
    ("schedule", "sanity"),
    [({}, 0), ({"every_n_train_steps": 2}, -1), ({"at_start": True, "at_end": True}, -1)],
    ids=["epochs", "steps", "start and end"],
)
def test_everything_of_an_audit_stands_at_one_step(tmp_path, make, schedule, sanity):
    callback = quick_audit(num_images=1, **schedule)
    run = trainer(tmp_path, [callback], max_epochs=3, num_sanity_val_steps=sanity)
    run.fit(make(), loader(count=16), loader(count=16))
    events = EventAccumulator(run.logger.log_dir, {"images": 0})
    events.Reload()
    scalars = [event.step for event in events.Scalars("audit/srg/libra")]
    (tag,) = (tag for tag in events.Tags()["images"] if tag.startswith("audit/image_000"))
    images = [event.step for event in events.Images(tag)]
    assert scalars == images == [record.step for record in callback.history]
    (history,) = events.Tensors("audit/history/text_summary")
    assert history.step >= scalars[-1]
    if not schedule:
        assert scalars == [event.step for event in events.Scalars("val_loss")]
