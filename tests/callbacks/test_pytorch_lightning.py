"""A Trainer of `pytorch_lightning` is audited as one of `lightning` is."""

import sys
from types import ModuleType

import lightning as L
import lightning.pytorch as pl
import pytest
import pytorch_lightning
from audit_cases import (
    Classifier,
    Steps,
    assert_same,
    digest,
    flat,
    last,
    loader,
    quick_audit,
)
from lightning.fabric.utilities.exceptions import MisconfigurationException

from libragrad_lightning.both_lightnings import in_both
from libragrad_lightning.callbacks import ShortcutAlarm


class OtherClassifier(Steps, pytorch_lightning.LightningModule):
    pass


LOGGERS = ("TensorBoardLogger", "CSVLogger")
PACKAGES = ((pl, Classifier), (pytorch_lightning, OtherClassifier))


def fit(folder, package, module, callbacks=(), **kwargs):
    """A fit in which all of Lightning comes from one of its packages."""
    package.seed_everything(0)
    defaults = {"max_epochs": 1, "enable_model_summary": False, "enable_progress_bar": False}
    trainer = package.Trainer(
        callbacks=list(callbacks),
        logger=[
            kind(folder) for kind in (package.loggers.TensorBoardLogger, package.loggers.CSVLogger)
        ],
        accelerator="cpu",
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        **(defaults | kwargs),
    )
    trainer.fit(module, loader(shuffle=True, count=8), loader(count=8))
    return trainer


def measured(callback):
    return [dict(r.values) | {"epoch": r.epoch, "weights": r.weights} for r in callback.history]


def test_both_find_and_write_the_same(tmp_path):
    callbacks, files = [], []
    for package, module in PACKAGES:
        folder = tmp_path / package.__name__
        alarm = ShortcutAlarm("audit/accuracy", "audit/energy_inside/libra")
        callbacks.append(quick_audit())
        package.seed_everything(0)
        trainer = fit(folder, package, module(), [alarm, callbacks[-1]])
        assert trainer.logged_metrics["audit/srg/libra"] == measured(callbacks[-1])[-1]["srg/libra"]
        written = (path.relative_to(folder) for path in folder.rglob("*"))
        files.append(sorted({p.as_posix().partition(".tfevents")[0] for p in written}))
    ours, theirs = callbacks
    assert len(ours.history) == 1
    assert measured(ours) == measured(theirs)
    assert_same(flat(last(ours)), flat(last(theirs)))
    assert files[0] == files[1]
    assert any(name.endswith("png") for name in files[0])


def test_a_run_of_the_other_package_is_the_same_with_and_without_the_audit(tmp_path):
    digests = []
    for callbacks in ([quick_audit(num_images=0)], []):
        pytorch_lightning.seed_everything(0)
        module = OtherClassifier()
        trainer = fit(tmp_path, pytorch_lightning, module, callbacks, enable_checkpointing=False)
        digests.append(digest(trainer, module))
    assert_same(*digests)


def test_averages_of_the_other_package_are_told(tmp_path):
    audit = quick_audit(at_end=True, num_images=0)
    averaging = pytorch_lightning.callbacks.StochasticWeightAveraging(1e-2, 1)
    fit(tmp_path, pytorch_lightning, OtherClassifier(), [averaging, audit], max_epochs=2)
    assert [record.weights for record in audit.history] == ["current"] * 2 + ["averaged"]


def test_what_is_refused_is_refused_there_too(tmp_path):
    with pytest.raises(MisconfigurationException, match="will not validate"):
        fit(tmp_path, pytorch_lightning, OtherClassifier(), [quick_audit()], limit_val_batches=0)


@pytest.mark.parametrize("kind", [pl.Trainer, pl.LightningModule, L.Fabric, pl.loggers.CSVLogger])
def test_a_class_has_its_twin(kind):
    ours, theirs = in_both(kind)
    assert ours is kind
    assert theirs is not kind
    assert theirs.__name__ == kind.__name__
    assert theirs.__module__.partition(".")[0] in ("pytorch_lightning", "lightning_fabric")


def test_nobody_is_imported_for_a_twin(monkeypatch):
    monkeypatch.delitem(sys.modules, "pytorch_lightning.trainer.trainer")
    assert in_both(pl.Trainer) == (pl.Trainer,)
    assert in_both(ModuleType) == (ModuleType,)
