"""A validation of a small model that calls a session by hand, in a Trainer that runs nothing."""

import lightning as L
import timm
import torch
import torch.nn.functional as F
from config_cases import config
from torch.utils.data import DataLoader, TensorDataset

from libragrad_lightning.monitoring.session import AuditSession
from libragrad_lightning.reporting import Pictures

IMAGES = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


class Small(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2}
        self.net = timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes)
        self.step = 0

    def validation_step(self, batch, batch_idx):
        self.step += 1
        return F.cross_entropy(self.net(batch[0]), batch[1])


def loader(count=12, batch_size=4):
    return DataLoader(TensorDataset(IMAGES[:count], LABELS[:count]), batch_size)


def trainer(path, module, fn="fit"):
    run = L.Trainer(
        accelerator="cpu",
        logger=False,
        default_root_dir=path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    run.strategy.connect(module)
    run.state.fn = fn
    return run


def session(name="audit", on_error="raise", max_overhead=None, **changes):
    """A session whose probe set has eight images of twelve."""
    quick = {"metrics": ["degenerate_rate", "drift_cosine"]}
    return AuditSession(config(**(quick | changes)), Pictures(), 0, max_overhead, on_error, name)


def validated(found, run, loader, is_due=True, needs_probe=True, known=True):
    """Let a session see a validation; return what it logs, and when it had audited."""
    module, logged, audited = run.lightning_module, [], []
    found.begin(run, loader, is_due, needs_probe)
    batches = list(loader) if loader is not None else []
    for i, batch in enumerate(batches):
        found.watch(run, "validation_step", batch, i)
        module.validation_step(batch, i)
        found.see(run, i, known and i + 1 == len(batches))
        audited.append(found._audits.run is not None)
    found.finish(run, found.name, logged.append)
    return logged, audited
