"""A small LightningModule on a timm ViT, loaders with masks, and digests of training runs."""

import random

import lightning as L
import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from libragrad_lightning.callbacks import Deletion, LibraGradAudit, Pictures, Schedule

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


class Steps:
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


class Classifier(Steps, L.LightningModule):
    pass


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


GROUPS = {
    "deletion": (Deletion, {"perturbation": "perturbation", "levels": "levels"}),
    "pictures": (
        Pictures,
        {"image_size": "size", "image_mean": "mean", "image_std": "std"}
        | {"class_names": "class_names"},
    ),
    "schedule": (
        Schedule,
        {
            name: name
            for name in "every_n_epochs every_n_train_steps at_start at_end max_overhead".split()
        },
    ),
}
"""Arguments that stand in groups: the group, and their names in it by those that tests give."""


def grouped(**kwargs):
    """Arguments of the audit, with those that belong to groups in their groups."""
    for group, (kind, names) in GROUPS.items():
        found = {own: kwargs.pop(name) for name, own in names.items() if name in kwargs}
        if found:
            kwargs[group] = kind(**found)
    return kwargs


def audit(**kwargs):
    defaults = {"max_samples": 12, "batch_size": 8, "num_images": 2, "image_size": 32}
    defaults |= {"print_summary": False, "levels": (0.3, 0.7)}
    return LibraGradAudit(**grouped(**(defaults | kwargs)))


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


def quick_audit(**kwargs):
    """An audit that takes little time."""
    quick = {"max_samples": 4, "num_images": 1, "image_size": 32, "levels": (0.5,)}
    return audit(**(quick | kwargs))


def last(callback):
    """What the last audit found, as a checkpoint holds it: fingerprints and maps."""
    return callback.state_dict()["history"]["last"]


def probe_ids(callback):
    """The images of the last audit, by their places in the validation loader."""
    return [place for place, _ in last(callback)["fingerprints"]]


PLAIN_VALUES = (bool, int, float, str, tuple, type(None), torch.dtype)


def digest(trainer, module):
    """Everything that a training run leaves behind, as one flat list of tensors and values."""
    return [
        *[p.detach().clone() for p in module.parameters()],
        *[b.clone() for b in module.buffers()],
        *[value for o in trainer.optimizers for value in flat(o.state_dict())],
        *[p.grad for p in module.parameters()],
        [p.requires_grad for p in module.parameters()],
        [m.training for m in module.modules()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in module.modules()],
        [(len(m._backward_hooks), len(m._backward_pre_hooks)) for m in module.modules()],
        [sorted(vars(m)) for m in module.modules()],
        [plain_values(m) for m in module.modules()],
        [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        (trainer.global_step, trainer.current_epoch, torch.is_grad_enabled()),
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    ]


def plain_values(module):
    return {
        name: value
        for name, value in vars(module).items()
        if type(value) in PLAIN_VALUES and name != "_torchdynamo_wrapper_id"
    }


def flat(value):
    """The leaves of nested dicts and lists."""
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in flat(v)]
    if isinstance(value, list):
        return [leaf for v in value for leaf in flat(v)]
    return [value]


def same(first, second):
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return first == second


def assert_same(first, second):
    """Every entry of two digests is equal, to the last bit."""
    assert len(first) == len(second)
    different = [i for i, pair in enumerate(zip(first, second, strict=True)) if not same(*pair)]
    assert not different, [(first[i], second[i]) for i in different[:3]]
