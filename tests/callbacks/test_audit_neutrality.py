"""A run is the same to the last bit with and without the audit, in every setting."""

import collections
import itertools
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from audit_cases import Classifier, assert_same, digest, loader, quick_audit, trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import nn

from libragrad_lightning.callbacks import Deletion, unpack_batch
from libragrad_lightning.monitoring.weights import fingerprint


class Checkpointed(Classifier):
    def __init__(self):
        super().__init__()
        self.net.set_grad_checkpointing()


class Frozen(Classifier):
    def __init__(self):
        super().__init__()
        self.net.requires_grad_(False)
        self.net.head.requires_grad_(True)


class LowRank(nn.Module):
    """A linear layer that is frozen, and a small one beside it that learns."""

    def __init__(self, linear, rank=2):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Linear(linear.in_features, rank, bias=False)
        self.up = nn.Linear(rank, linear.out_features, bias=False)

    def forward(self, x):
        return self.linear(x) + self.up(self.down(x))


class Adapted(Frozen):
    def __init__(self):
        super().__init__()
        for block in self.net.blocks:
            block.attn.qkv = LowRank(block.attn.qkv)


class Shallow(Classifier):
    """Little to compile."""

    def __init__(self):
        super().__init__()
        self.net.blocks = self.net.blocks[:1]


class CompiledPart(Shallow):
    def __init__(self):
        super().__init__()
        self.net = torch.compile(self.net, backend="eager")


class Tuned(Classifier):
    """Has what the learning rate and batch size finders change."""

    lr = 1e-3
    batch_size = 2

    def train_dataloader(self):
        return loader(count=16, batch_size=self.batch_size)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


class Drawing(Classifier):
    """Draws from random streams of its own, in evaluation too."""

    def __init__(self):
        super().__init__()
        self.torch_stream = torch.Generator().manual_seed(3)
        self.numpy_stream = np.random.default_rng(3)
        self.python_stream = random.Random(3)

    def forward(self, images):
        noise = torch.rand(1, generator=self.torch_stream) + self.numpy_stream.random()
        return super().forward(images * (1 + 0.1 * (noise + self.python_stream.random())))


class Schedule:
    """A plain object that counts."""

    def __init__(self):
        self.calls, self.seen = itertools.count(1), collections.deque(maxlen=3)

    def scale(self, value):
        self.seen.append(float(value))
        return 1 + 0.01 * next(self.calls) + 0.01 * sum(self.seen)


class Counting(Classifier):
    """What it computes depends on how often it was called, and with what."""

    def __init__(self):
        super().__init__()
        self.schedule = Schedule()

    def forward(self, images):
        return super().forward(images) * self.schedule.scale(images.mean())


class Hooked(Classifier):
    """Forward hooks keep what they see in a list outside, which the loss depends on."""

    def __init__(self):
        super().__init__()
        seen = [0.0]
        self.net.register_forward_hook(lambda _, __, output: seen.append(float(output.mean())))
        self.net.blocks[0].register_full_backward_hook(lambda *_: seen.append(1.0))
        self.seen = lambda: sum(seen) / len(seen)

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * (1 + self.seen())


class LogsInForward(Classifier):
    def forward(self, images):
        scores = super().forward(images)
        self.log("mean_score", scores.mean())
        return scores


class Predicting(Classifier):
    def predict_step(self, batch, batch_idx):
        return self(batch[0]).argmax(1)


def drawing(batch):
    random.random()
    np.random.rand()
    return unpack_batch([batch[0] + 0 * torch.rand_like(batch[0]), *batch[1:]])


def moving_average():
    return WeightAveraging(multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))


@dataclass(frozen=True)
class Setting:
    """What a run is like."""

    trainer: dict[str, Any] = field(default_factory=dict)
    module: Callable[[], L.LightningModule] = Classifier
    callbacks: Callable[[], Sequence[Callback]] = tuple
    audit: dict[str, Any] = field(default_factory=dict)
    loaders: int = 1
    weights: Sequence[str] = ("current",) * 3
    said: Sequence[str] = ()
    compiled: bool = False


class Waiting(Callback):
    """Wants a value of the audit, as `EarlyStopping` does, and does nothing with it."""

    def __init__(self):
        self.monitor = "audit/srg/libra"


AVERAGED = "weights that another callback averaged, not those that were trained"
SETTINGS = {
    "plain": Setting(audit={"num_images": 2}),
    "accumulation": Setting({"accumulate_grad_batches": 4, "val_check_interval": 2}),
    "bf16-mixed": Setting(
        {"precision": "bf16-mixed"}, audit={"deletion": Deletion(precision="bfloat16")}
    ),
    "bf16-true": Setting({"precision": "bf16-true"}, said=["float32 copies of bfloat16 weights"]),
    "bf16-true in bf16": Setting(
        {"precision": "bf16-true"}, audit={"precision": "module"}, said=["bfloat16 weights"]
    ),
    "clipping": Setting({"gradient_clip_val": 0.1}),
    "compiled module": Setting(module=Shallow, compiled=True),
    "compiled part": Setting(module=CompiledPart),
    "gradient checkpointing": Setting(module=Checkpointed),
    "weight averaging": Setting(
        callbacks=lambda: [moving_average()], weights=["averaged"] * 3, said=[AVERAGED]
    ),
    "stochastic weight averaging": Setting(
        # One more epoch recomputes the statistics of batch norms.
        callbacks=lambda: [StochasticWeightAveraging(1e-2, 1)],
        audit={"at_end": True},
        weights=["current"] * 3 + ["averaged"],
        said=[AVERAGED],
    ),
    "frozen backbone": Setting(module=Frozen),
    "low-rank adapter": Setting(module=Adapted),
    "limit_val_batches": Setting({"limit_val_batches": 1}),
    "check_val_every_n_epoch": Setting({"check_val_every_n_epoch": 2}, weights=["current"]),
    "val_check_interval": Setting({"val_check_interval": 0.5}, weights=["current"] * 6),
    "several loaders": Setting(audit={"dataloader_idx": 1}, loaders=2),
    "overfit_batches": Setting({"overfit_batches": 1}),
    "fast_dev_run": Setting({"fast_dev_run": True}, weights=["current"]),
    "learning rate finder": Setting(
        module=Tuned, callbacks=lambda: [LearningRateFinder(num_training_steps=4)]
    ),
    "batch size finder": Setting(
        module=Tuned, callbacks=lambda: [BatchSizeFinder(max_trials=2, steps_per_trial=1)]
    ),
    "steps": Setting(audit={"every_n_train_steps": 2}),
    "start and end": Setting(
        {"num_sanity_val_steps": -1, "check_val_every_n_epoch": 2},
        audit={"at_start": True, "at_end": True},
        weights=["initial", "current", "final"],
        said=["the weights that the fit leaves behind"],
    ),
    "stratified": Setting(audit={"probe": "stratified"}),
    "overhead": Setting(
        callbacks=lambda: [Waiting()],
        audit={"max_overhead": 1e-6},
        weights=["current"],
    ),
    "postponed": Setting(audit={"max_overhead": 1e-6}, weights=[]),
    "random streams of the module's own": Setting(module=Drawing),
    "objects that count calls": Setting(module=Counting),
    "hooks of others": Setting(module=Hooked),
    "self.log in forward": Setting(module=LogsInForward),
    "user function that draws random numbers": Setting(
        {"num_sanity_val_steps": 0},  # Lightning takes back what is drawn in its sanity check
        audit={"unpack": drawing},
    ),
}


def run_with(path, setting, callbacks):
    L.seed_everything(7)
    module = setting.module()
    if setting.compiled:
        module = torch.compile(module, backend="eager")
    defaults = {"max_epochs": 3, "enable_checkpointing": False}
    run = trainer(path, [*setting.callbacks(), *callbacks], **(defaults | setting.trainer))
    training = None if setting.module is Tuned else loader(shuffle=True, count=16)
    run.fit(module, training, [loader(count=16) for _ in range(setting.loaders)])
    return run, module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.rotating
def test_a_run_is_the_same_with_and_without_the_audit(tmp_path, name, caplog):
    caplog.set_level(logging.INFO)
    setting = SETTINGS[name]
    callback = quick_audit(**({"num_images": 0} | setting.audit))
    audited = digest(*run_with(tmp_path / "with", setting, [callback]))
    assert [record.weights for record in callback.history] == list(setting.weights)
    said = [m for m in caplog.messages if m.startswith("LibraGradAudit explains")]
    assert said == [f"LibraGradAudit explains {what}." for what in setting.said]
    assert all(record.values for record in callback.history)
    assert_same(audited, digest(*run_with(tmp_path / "without", setting, [])))


@pytest.mark.filterwarnings("ignore")
def test_validate_test_and_predict_leave_the_run_as_it_is(tmp_path):
    digests = []
    for callbacks in ([quick_audit()], []):
        setting = Setting(module=Predicting)
        run, module = run_with(tmp_path / str(len(callbacks)), setting, callbacks)
        run.validate(module, loader(count=16), verbose=False)
        run.test(module, loader(count=16), verbose=False)
        predicted = run.predict(module, loader(count=16))
        digests.append([*predicted, *digest(run, module)])
    assert_same(*digests)


def test_a_fingerprint_changes_with_the_weights_alone():
    module = nn.Linear(3, 2)
    first = fingerprint(module)
    assert fingerprint(module) == first
    with torch.no_grad():
        module.bias[0] += 1e-3
    assert fingerprint(module) != first
    with torch.no_grad():
        module.bias[0] = float("nan")
    assert fingerprint(module) == fingerprint(module)
    assert fingerprint(nn.Flatten()) == []
