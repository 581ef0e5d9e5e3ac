"""Runs two forked processes (gloo) that see different things, and writes what each says of it."""

import json
import warnings

import lightning as L
import timm
import torch
import torch.distributed as dist
from audit_cases import grouped, trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader
from twin_modules import Data, Plain, example

from libragrad_lightning.audit import AuditError
from libragrad_lightning.callbacks import LibraGradAudit, Samples


class Write(Callback):
    """Writes what a process has in the end: audits, warnings, or why it ended."""

    def __init__(self, path):
        self.path, self.error = path, None

    def on_validation_end(self, trainer, pl_module):
        self.write(trainer)

    def write(self, trainer):
        history = [r for c in trainer.callbacks for r in getattr(c, "history", [])]
        found = {
            "audits": [[r.samples, dict(r.values)] for r in history],
            "error": self.error,
            "said": [str(w.message) for w in SAID],
        }
        path = self.path.with_name(f"{self.path.name}_{trainer.global_rank}.json")
        path.write_text(json.dumps(found))


class Witnessed(LibraGradAudit):
    """Lets a process write why it ends."""

    writer = None

    def on_validation_epoch_end(self, trainer, module):
        try:
            super().on_validation_epoch_end(trainer, module)
        except Exception as error:
            self.writer.error = f"{type(error).__name__}: {error}"
            self.writer.write(trainer)
            raise


SAID = []


def fails_in_the_second_process(batch):
    if dist.get_rank() == 1 and torch.equal(batch[0][0], example(9)[0]):
        raise AuditError("planted in a batch.")
    return Samples(None, batch[1], batch[2])


class OddSizes(Plain):
    """Takes images of any size; the second process has smaller ones."""

    def __init__(self):
        super().__init__()
        size = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}
        self.net = timm.create_model(
            "vit_tiny_patch16_224", num_classes=4, dynamic_img_size=True, **size
        )


def smaller_for_odd(i):
    image, label, mask = example(i)
    return (image[:, :24], label, mask[:24]) if i % 2 else (image, label, mask)


class OneLogit(Plain):
    """Labels of 0 and 1 in one process, of 0 to 3 in the other: quantities, seen together."""

    def __init__(self):
        super().__init__()
        self.net.reset_classifier(1)

    def step(self, batch):
        return (self(batch[0])[:, 0] - batch[1]).square().mean()


def quantities(i):
    return example(i)[0], i % 4 if i % 2 else 0


SCENARIOS = {
    "warned": (Plain, example, {"unpack": fails_in_the_second_process, "on_error": "warn"}),
    "raised": (Plain, example, {"unpack": fails_in_the_second_process}),
    "sizes": (OddSizes, smaller_for_odd, {}),
    "tasks": (OneLogit, quantities, {"metrics": ["completeness_error"]}),
}


def run(folder, name):
    make, item, arguments = SCENARIOS[name]
    metrics = {"metrics": ["srg", "completeness_error"], "num_images": 0, "max_samples": 12}
    callback = Witnessed(**grouped(**(metrics | {"print_summary": False} | arguments)))
    callback.writer = Write(folder / name)
    L.seed_everything(3, verbose=False)
    process = trainer(
        folder,
        [callback, callback.writer],
        devices=2,
        strategy="ddp_fork",
        logger=False,
        max_epochs=1,
        enable_checkpointing=False,
        num_sanity_val_steps=1,
    )
    loader = DataLoader(Data(item), 1 if name == "sizes" else 2)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        SAID[:] = []
        globals()["SAID"] = said
        try:
            process.fit(make(), loader, loader)
        except Exception as error:
            (folder / f"{name}_ended.txt").write_text(f"{type(error).__name__}: {error}")


def main(folder):
    torch.set_num_threads(1)
    for name in SCENARIOS:
        run(folder, name)
