"""What is not the model's own is neither entered, nor copied, nor put back."""

import collections
import enum
import logging
import sys
import threading
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import timm
import torch
import torchmetrics
from memory_objects import Stateful, Tally
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from libragrad_lightning.models import explanation_state
from libragrad_lightning.models.boundary import Boundary
from libragrad_lightning.models.reach import Reachable
from libragrad_lightning.models.values import LARGEST

X = torch.randn(2, 3)


class MyTrainer(pl.Trainer):
    """A trainer of one's own."""


class MyDataset(Dataset):
    def __init__(self):
        self.tally = Tally()


class MyLoader:
    """Reads ahead in the background."""

    def __init__(self):
        self.read = []
        self.thread = threading.Thread(target=lambda: None)


class MyThread(threading.Thread):
    """Does something."""


class Color(enum.Enum):
    RED = 1


OURS = [Tally, types.SimpleNamespace, collections.UserDict]
NOT_OURS = [
    MyTrainer,
    MyDataset,
    MyThread,
    Color,
    pl.Trainer,
    pl.LightningDataModule,
    DataLoader,
    TensorDataset,
    torch.optim.SGD,
    torch.distributions.Normal,
    torchmetrics.MetricTracker,
    logging.Logger,
    threading.local,
    ThreadPoolExecutor,
    type(threading.Lock()),
    Path,
    pytest.Item,
    Reachable,
    np.random.SeedSequence,
]


def network(held=None, advance=lambda m, x: None):
    return Stateful(held, advance, None).eval()


@pytest.mark.parametrize("kind", OURS)
def test_objects_of_the_user_belong_to_the_model(kind):
    assert Boundary(network()).includes(kind)


@pytest.mark.parametrize("kind", NOT_OURS)
def test_objects_of_libraries_do_not(kind):
    assert not Boundary(network()).includes(kind)


def test_the_package_of_a_module_belongs_to_the_model():
    kind = type("Helper", (), {"__module__": "timm.helper"})
    assert not Boundary(network()).includes(kind)
    assert Boundary(timm.create_model("vit_tiny_patch16_224", depth=1)).includes(kind)


def test_what_a_function_holds_may_derive_from_a_framework():
    boundary = Boundary(network())
    assert boundary.includes(MyDataset, held_by_function=True)
    for kind in (MyThread, pl.Trainer, threading.Thread, logging.Logger):
        assert not boundary.includes(kind, held_by_function=True)


class Lit(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters({"rate": 1})
        self.layer = nn.Linear(3, 3)
        self.tally = Tally()
        self.metric = torchmetrics.MeanMetric()

    def forward(self, x):
        self.tally.add()
        self.metric.update(x.mean())
        self.hparams["calls"] = self.tally.count
        return self.layer(x)

    def training_step(self, batch):
        return self(batch[0]).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Explaining(pl.Callback):
    """Enters the state in training, and remembers what was reached."""

    def __init__(self):
        self.targets = []

    def on_train_batch_end(self, trainer, module, *_):
        self.targets += [h.target for h in Reachable(module).holders]
        before = module.tally.count
        with explanation_state(module):
            module(X)
        assert module.tally.count == before


@pytest.mark.parametrize("kind", [pl.Trainer, MyTrainer])
def test_a_trainer_is_out_of_reach(kind, tmp_path):
    module, callback = Lit(), Explaining()
    trainer = kind(
        max_steps=2,
        logger=pl.loggers.CSVLogger(tmp_path),
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.randn(4, 3)), 2))
    assert module.tally.count == 2
    assert module.metric._update_count == 2
    assert module.hparams == {"rate": 1, "calls": 2}
    reached = {id(target) for target in callback.targets}
    assert id(vars(module.tally)) in reached
    for stranger in (trainer, trainer.strategy, trainer.logger, callback, trainer.optimizers[0]):
        assert id(vars(stranger)) not in reached


@pytest.mark.parametrize("make", [MyDataset, MyLoader])
def test_what_loads_data_is_not_put_back(make):
    held = make()
    model = network(held, lambda m, x: setattr(m.held, "went_on", True))
    with explanation_state(model):
        model(X)
    assert held.went_on


def test_a_subclass_of_a_framework_is_put_back_if_a_hook_holds_it():
    dataset = MyDataset()
    model = network()
    model.register_forward_hook(lambda *_: dataset.tally.add())
    with explanation_state(model):
        model(X)
        assert dataset.tally.count == 1
    assert dataset.tally.count == 0


def test_globals_and_classes_are_left_alone():
    class Counted(nn.Module):
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            return x

    model = Counted()
    with explanation_state(model):
        model(X)
    assert Counted.calls == 1


def test_generators_files_and_python_modules_are_passed_by(tmp_path):
    pairs = zip((i for i in range(9)), [*range(9)], strict=False)
    with (tmp_path / "file").open("w") as file:
        model = network([pairs, file, sys, Tally, Color.RED], lambda m, x: next(m.held[0]))
        with explanation_state(model):
            model(X)
    assert next(pairs) == (1, 1)


class MyParameter(nn.Parameter):
    """A weight that some library packs in its own way."""


def test_weights_are_not_copied():
    model = network()
    weights = [*model.parameters(), MyParameter(torch.ones(3))]
    model.held = {"weights": weights, "ema": torch.zeros(3)}
    assert list(Reachable(model).others) == [id(model.held["ema"])]


def large():
    return torch.zeros(LARGEST // 4 + 1)


def test_large_tensors_of_plain_objects_are_reported_instead_of_copied():
    held = types.SimpleNamespace(data=large(), count=torch.zeros(1))
    model = network(held, lambda m, x: m.held.count.add_(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with explanation_state(model):
            model(X)
    assert held.count == 0
    model.advance = lambda m, x: (m.held.count.add_(1), m.held.data.add_(1))
    with (
        pytest.warns(UserWarning, match=r"\(4194305,\).*register it as a buffer"),
        explanation_state(model),
    ):
        model(X)
    assert held.count == 0
    assert held.data[0] == 1


def test_large_buffers_are_copied():
    model = network(None, lambda m, x: m.buffer.add_(1))
    model.register_buffer("buffer", large())
    with explanation_state(model):
        model(X)
    assert not model.buffer.any()


def test_a_data_set_in_a_list_is_as_it_was_and_hides_nothing():
    data = [(str(i), [i]) for i in range(300_000)]
    held = types.SimpleNamespace(data=data, tally=Tally())
    model = network(held, lambda m, x: (m.held.tally.add(), m.held.data.append(1)))
    with explanation_state(model):
        model(X)
        assert len(data) == 300_001
    assert len(data) == 300_000
    assert held.tally.count == 0


def test_deep_chains_do_not_exhaust_the_stack():
    held = deepest = Tally()
    for _ in range(5_000):
        held = [{"next": held}]
    model = network(held, lambda m, x: deepest.add())
    with explanation_state(model):
        model(X)
        assert deepest.count == 1
    assert deepest.count == 0


def test_scripted_models_are_as_they_were():
    model = torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with explanation_state(model):
        model(X)
        model[1].running_mean += 1
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_something_that_cannot_be_put_back_does_not_keep_the_rest_from_it():
    class Stubborn(torch.Generator):
        def set_state(self, state):
            raise RuntimeError("no")

    tally = Tally()
    model = network([Stubborn(), tally], lambda m, x: m.held[1].add())
    model.train()
    with pytest.raises(RuntimeError, match="no"), explanation_state(model):
        model(X)
    assert tally.count == 0
    assert model.training
