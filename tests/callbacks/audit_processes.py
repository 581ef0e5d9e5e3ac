"""Runs audits in two forked processes (gloo), then in one, and writes what they found.

In an interpreter of its own, since processes cannot be forked where autograd has run.
"""

import json

import lightning as L
import torch
from audit_cases import Classifier, digest, loader, quick_audit, trainer
from lightning.pytorch.callbacks import Callback

from libragrad_lightning.audit import AuditRun

METRICS = ["srg", "segmentation_ap", "completeness_error", "mif_aopc"]
PROBES = {"odd": (13, 23), "all": (24, 23), "one": (1, 8)}
"""Size of the probe set and of the data."""


class Write(Callback):
    """Writes what a process sees at the end."""

    def __init__(self, path):
        self.path = path

    def on_validation_epoch_end(self, trainer, pl_module):
        self.write(trainer)

    def on_fit_end(self, trainer, pl_module):
        torch.save(digest(trainer, pl_module), self.file(trainer, "pt"))

    def write(self, trainer):
        history = [r for c in trainer.callbacks for r in getattr(c, "history", [])]
        found = [
            {"samples": r.samples, "values": dict(r.values), "epoch": r.epoch} for r in history
        ]
        self.file(trainer, "json").write_text(json.dumps(found))

    def file(self, trainer, suffix):
        return self.path.with_name(f"{self.path.name}_{trainer.global_rank}.{suffix}")


def run(folder, name, devices, callback, fit=False, count=24):
    L.seed_everything(3, verbose=False)
    callbacks = [c for c in (callback, Write(folder / f"{name}_{devices}")) if c is not None]
    strategy = "ddp_fork" if devices > 1 else "auto"
    kwargs = {"devices": devices, "strategy": strategy, "logger": False, "max_epochs": 3}
    process = trainer(folder, callbacks, enable_checkpointing=False, **kwargs)
    validation = loader(count=count, batch_size=4)
    if fit:
        process.fit(Classifier(), loader(count=count, batch_size=4), validation)
    else:
        process.validate(Classifier(), validation, verbose=False)


def validate(folder, devices):
    for name, (size, count) in PROBES.items():
        callback = quick_audit(max_samples=size, metrics=METRICS, num_images=0)
        run(folder, name, devices, callback, count=count)


def fail_in_the_second(folder):
    """One process fails in the second epoch only."""
    result = AuditRun.add

    def failing(self, groups):
        if torch.distributed.get_rank() == 1 and self.module.current_epoch == 1:
            raise ValueError("planted")
        return result(self, groups)

    AuditRun.add = failing
    callback = quick_audit(metrics=METRICS, num_images=0, on_error="warn")
    run(folder, "failing", 2, callback, fit=True)
    AuditRun.add = result


def main(folder):
    torch.set_num_threads(1)
    validate(folder, 2)
    fail_in_the_second(folder)
    run(folder, "with", 2, quick_audit(max_samples=5, max_overhead=1e3), fit=True)
    run(folder, "without", 2, None, fit=True)
    validate(folder, 1)
