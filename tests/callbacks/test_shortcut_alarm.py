"""`ShortcutAlarm`: goes off when accuracy and explanations part, stays silent otherwise."""

import warnings
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from libragrad_lightning.callbacks import ShortcutAlarm
from libragrad_lightning.cli import LibraGradCLI
from libragrad_lightning.monitoring import AuditedAccuracy

pytestmark = pytest.mark.rotating

MARKED = (
    # Accuracy on marked images and energy inside the object, seen with configs/shortcut.yaml.
    (0.242, 0.3567),
    (0.347, 0.6362),
    (0.395, 0.6236),
    (0.723, 0.4455),
    (0.851, 0.3537),
    (0.89, 0.3099),
    (0.883, 0.336),
    (0.987, 0.2591),
    (0.996, 0.2345),
    (0.999, 0.2334),
    (1.0, 0.2307),
    (0.999, 0.2308),
)
UNMARKED = (
    # The same with strength 0.
    (0.256, 0.3651),
    (0.38, 0.5736),
    (0.435, 0.6085),
    (0.491, 0.6893),
    (0.531, 0.6568),
    (0.575, 0.6211),
    (0.562, 0.6353),
    (0.617, 0.635),
    (0.641, 0.6403),
    (0.65, 0.6159),
    (0.659, 0.6116),
    (0.659, 0.6184),
)


def audits(curve):
    return [AuditedAccuracy(i, 10 * i, *values) for i, values in enumerate(curve)]


def first_alarm(curve, **kwargs):
    """The audit after which the alarm goes off, or None."""
    alarm = ShortcutAlarm(**kwargs)
    for i, audit in enumerate(audits(curve)):
        alarm.history.append(audit)
        if alarm.judge():
            return i
    return None


def test_a_shortcut_is_told_from_honest_learning():
    assert first_alarm(MARKED) == 4
    assert first_alarm(UNMARKED) is None


@pytest.mark.parametrize(
    ("curve", "patience", "expected"),
    [
        ([(0.2, 0.6), (0.9, 0.3)], 1, 1),
        ([(0.2, 0.6), (0.9, 0.3)], 2, None),
        ([(0.2, 0.6), (0.2, 0.6), (0.9, 0.3), (0.9, 0.3)], 2, 3),
        # One unlucky audit, one lucky audit.
        ([(0.2, 0.6), (0.2, 0.6), (0.9, 0.3), (0.9, 0.6), (0.9, 0.6)], 2, None),
        ([(0.2, 0.3), (0.2, 0.6), (0.9, 0.3), (0.9, 0.3), (0.9, 0.3)], 2, None),
        # Explanations get worse and accuracy with them; accuracy rises and explanations with it.
        ([(0.9, 0.6), (0.9, 0.6), (0.2, 0.3), (0.2, 0.3)], 2, None),
        ([(0.2, 0.3), (0.2, 0.3), (0.9, 0.6), (0.9, 0.6)], 2, None),
        # Slowly, over many audits.
        ([(0.5 + 0.02 * i, 0.8 - 0.03 * i) for i in range(10)], 2, 6),
    ],
)
def test_both_sides_must_agree_for_as_many_audits_as_patience_says(curve, patience, expected):
    assert first_alarm(curve, patience=patience) == expected


def test_noise_alone_raises_no_alarm():
    # The sampling error of a probe set of 128 images, at the end of training: 100 fits.
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.02, (100, 30))
    accuracy = np.linspace(0.3, 0.9, 30)
    alarms = [
        first_alarm(zip(accuracy.tolist(), (0.6 + row).tolist(), strict=True)) for row in noise
    ]
    assert sum(alarm is not None for alarm in alarms) == 0


def test_a_shortcut_learned_before_the_first_audit():
    curve = [(0.3, 0.2), (0.4, 0.2), (0.97, 0.41), (1.0, 0.44), (0.99, 0.40), (1.0, 0.39)]
    assert first_alarm(curve) is None
    assert first_alarm(curve, min_quality=0.42) == 5
    assert first_alarm(curve, min_quality=0.45) == 3
    assert first_alarm(curve, min_quality=0.42, min_accuracy=0.3) == 1


@pytest.mark.parametrize(
    ("latest", "alarmed"),
    [
        ([(0.5, 0.39), (0.6, 0.39)], True),
        ([(0.5, 0.39), (0.6, 0.4)], False),  # good enough
        ([(0.6, 0.4), (0.5, 0.39)], False),
        ([(0.49, 0.39), (0.6, 0.39)], False),  # has not learned enough
        ([(0.6, 0.39)], False),
    ],
)
def test_what_is_out_of_sight(latest, alarmed):
    alarm = ShortcutAlarm(min_quality=0.4, min_accuracy=0.5)
    alarm.history = audits(latest)
    message = alarm.judge()
    assert (message is not None) == alarmed
    if alarmed:
        assert message == (
            "ShortcutAlarm: `val_acc` is 0.600 but `audit/energy_inside/libra` is 0.390, below "
            "0.4, since epoch 0 (step 0): the model seems to be right for a reason outside the "
            "object; look at the audit's pictures."
        )


@pytest.mark.parametrize(("second", "expected"), [((0.5, 0.5), 1), ((0.49, 0.5), None)])
def test_least_patience_and_least_differences(second, expected):
    limits = {"patience": 1, "min_rise": 0.25, "min_drop": 0.125}
    assert first_alarm([(0.25, 0.625), second], **limits) == expected


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"patience": 0}, "`patience` of at least 1 but got 0"),
        ({"min_rise": 0.0}, "`min_rise` above 0 but got 0.0"),
        ({"min_drop": -0.1}, "`min_drop` above 0 but got -0.1"),
        ({"min_drop": float("nan")}, "`min_drop` above 0 but got nan"),
        ({"action": "shout"}, "`action` is 'warn' or 'stop'"),
    ],
)
def test_arguments_are_checked(kwargs, match):
    with pytest.raises(MisconfigurationException, match=match):
        ShortcutAlarm(**kwargs)


class Scripted(L.LightningModule):
    """Logs a curve instead of learning one; `audited` says at which epochs quality is logged."""

    def __init__(self, curve, audited=None, keys=("val_acc", "audit/energy_inside/libra")):
        super().__init__()
        self.curve, self.keys = curve, keys
        self.audited = range(len(curve)) if audited is None else audited
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        accuracy, quality = self.curve[self.current_epoch]
        self.log(self.keys[0], accuracy)
        if self.current_epoch in self.audited:
            self.log(self.keys[1], quality)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def fit(tmp_path, module, alarm, checkpoint=None, **kwargs):
    defaults = {"max_epochs": len(module.curve), "logger": False, "enable_checkpointing": False}
    run = L.Trainer(
        accelerator="cpu",
        callbacks=[alarm],
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        **(defaults | kwargs),
    )
    data = DataLoader(torch.zeros(2, 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        run.fit(module, data, data, ckpt_path=checkpoint)
    return run


def test_it_warns_once_and_goes_on(tmp_path):
    alarm = ShortcutAlarm()
    with pytest.warns(UserWarning, match="ShortcutAlarm") as warned:
        run = fit(tmp_path, Scripted([*MARKED, *MARKED[-2:]]), alarm)
    assert run.current_epoch == len(MARKED) + 2
    (message,) = [str(w.message) for w in warned if "ShortcutAlarm" in str(w.message)]
    assert message == alarm.message
    assert "since epoch 2 (step 6), `val_acc` has risen from 0.395 to 0.851" in message
    assert "`audit/energy_inside/libra` has fallen from 0.624 to 0.354" in message
    (text,) = (tmp_path / "shortcut_alarm").iterdir()
    assert (text.name, text.read_text()) == ("00000009.md", message)


def test_it_stops(tmp_path):
    with pytest.warns(UserWarning, match="ShortcutAlarm"):
        run = fit(tmp_path, Scripted(MARKED), ShortcutAlarm(action="stop"))
    assert run.current_epoch == 5
    assert run.global_step == 10


def test_it_stops_with_another_process(tmp_path, monkeypatch):
    monkeypatch.setattr(Strategy, "reduce_boolean_decision", lambda *_, **__: True)
    alarm = ShortcutAlarm(action="stop")
    assert fit(tmp_path, Scripted(UNMARKED), alarm).current_epoch == 1
    assert alarm.message is None


def test_it_is_silent(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "ShortcutAlarm")
        alarm = ShortcutAlarm(action="stop")
        run = fit(tmp_path, Scripted(UNMARKED), alarm)
    assert run.current_epoch == len(UNMARKED)
    assert alarm.history == [
        AuditedAccuracy(i, 2 * i + 2, pytest.approx(a), pytest.approx(q))
        for i, (a, q) in enumerate(UNMARKED)
    ]
    assert not (tmp_path / "shortcut_alarm").exists()


def test_validations_without_an_audit_and_sanity_checks_do_not_count(tmp_path):
    alarm = ShortcutAlarm()
    fit(tmp_path, Scripted(UNMARKED, audited=(1, 4)), alarm)
    assert [audit.epoch for audit in alarm.history] == [1, 4]
    fit(tmp_path, Scripted([(0.3, float("nan")), (0.4, 0.5)]), alarm)
    assert [audit.epoch for audit in alarm.history] == [1]


def test_a_resumed_run_goes_on(tmp_path):
    first, module = ShortcutAlarm(), Scripted(MARKED)
    path = tmp_path / "last.ckpt"
    fit(tmp_path, module, first, max_epochs=4).save_checkpoint(path)
    resumed = ShortcutAlarm()
    with pytest.warns(UserWarning, match="since epoch 2"):
        fit(tmp_path, module, resumed, path)
    whole = ShortcutAlarm()
    with pytest.warns(UserWarning, match="since epoch 2"):
        fit(tmp_path, module, whole)
    assert resumed.state_dict() == whole.state_dict()
    assert len(resumed.history) == len(MARKED)


def test_an_alarm_that_went_off_stays_off_after_a_resume(tmp_path):
    first, module = ShortcutAlarm(), Scripted(MARKED)
    path = tmp_path / "last.ckpt"
    with pytest.warns(UserWarning, match="ShortcutAlarm"):
        fit(tmp_path, module, first, max_epochs=6).save_checkpoint(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "ShortcutAlarm")
        fit(tmp_path, module, ShortcutAlarm(), path)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        (("acc", "audit/energy_inside/libra"), r"`val_acc`.*set `accuracy` to one of \['acc'"),
        (("val_acc", "audit/srg/libra"), r"inside/libra`.*`quality` to one of \['audit/srg/libra'"),
    ],
)
def test_a_metric_that_is_not_logged(tmp_path, keys, match):
    with pytest.raises(MisconfigurationException, match=match):
        fit(tmp_path, Scripted(UNMARKED, keys=keys), ShortcutAlarm())


def test_a_fit_without_audits(tmp_path):
    with pytest.warns(UserWarning, match="saw no audit in this fit"):
        fit(tmp_path, Scripted(UNMARKED, audited=()), ShortcutAlarm())


def test_a_run_that_only_tries_the_code_is_not_watched(tmp_path):
    alarm = ShortcutAlarm(accuracy="logged later")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "ShortcutAlarm")
        fit(tmp_path, Scripted(MARKED), alarm, fast_dev_run=True)
    assert alarm.history == []


def test_alarms_on_different_metrics_share_a_trainer():
    names = ("a/b", "a/c")
    keys = {ShortcutAlarm(first, second).state_key for first in names for second in names}
    assert len(keys) == 4


def test_the_shortcut_configuration_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Path(__file__).parents[2] / "configs" / "shortcut.yaml"
    small = {
        "data.num_train": 96,
        "data.num_val": 16,
        "trainer.val_check_interval": 1,
        "trainer.max_epochs": 1,
        "trainer.enable_progress_bar": "false",
    }
    arguments = ["fit", "--config", str(config), *[f"--{k}={v}" for k, v in small.items()]]
    ran = LibraGradCLI(args=arguments)
    (alarm,) = [c for c in ran.trainer.callbacks if isinstance(c, ShortcutAlarm)]
    assert [audit.step for audit in alarm.history] == [1, 2, 3]
    metrics = ran.trainer.callback_metrics
    assert alarm.history[-1].accuracy == metrics["val_acc/dataloader_idx_0"]
    assert alarm.history[-1].quality == metrics["audit/energy_inside/libra"]
    assert "val_acc/dataloader_idx_1" in metrics
