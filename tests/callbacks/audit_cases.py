"""A small LightningModule on a timm ViT, loaders with masks, and digests of training runs."""

import random

import lightning as L
import numpy as np
import timm
import torch
import torch.nn.functional as F
from libragrad_lightning.callbacks import LibraGradAudit
from torch.utils.data import DataLoader, TensorDataset

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


class Classifier(L.LightningModule):
    """Dropout and batch norm make a disturbed random stream or buffer visible."""

    def __init__(self, name="vit_tiny_patch16_224", forward=True):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.net = timm.create_model(name, num_classes=4, drop_rate=0.2, **SMALL)

    def forward(self, images):
        return self.net(self.norm(images))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def data(count=48, seed=0):
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 32, 32, generator=g)
    labels = torch.randint(0, 4, (count,), generator=g)
    masks = torch.zeros(count, 32, 32, dtype=torch.bool)
    masks[:, 8:24, 8:24] = True
    images[:, :, 8:24, 8:24] += labels[:, None, None, None]
    return TensorDataset(images, labels, masks)


def loader(shuffle=False, count=48, batch_size=8):
    return DataLoader(data(count), batch_size, shuffle=shuffle)


def audit(**kwargs):
    return LibraGradAudit(
        **({"max_samples": 12, "batch_size": 8, "num_images": 2, "print_summary": False} | kwargs)
    )


def trainer(tmp_path, callbacks=(), **kwargs):
    defaults = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "default_root_dir": tmp_path,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    return L.Trainer(callbacks=list(callbacks), **(defaults | kwargs))


def digest(trainer, module):
    """Everything that a training run leaves behind, as one flat list of tensors and values."""
    optimizer = trainer.optimizers[0].state_dict()["state"]
    return [
        *[p.detach().clone() for p in module.parameters()],
        *[b.clone() for b in module.buffers()],
        *[value for state in optimizer.values() for value in state.values()],
        *[p.grad for p in module.parameters()],
        [p.requires_grad for p in module.parameters()],
        [m.training for m in module.modules()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()],
        [sorted(vars(m)) for m in module.modules()],
        trainer.lr_scheduler_configs[0].scheduler.state_dict(),
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    ]


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return first == second
