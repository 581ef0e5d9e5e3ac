"""Whether training runs on a device are the same, bit for bit, with and without the audit."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch.strategies import (
    DDPStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    Strategy,
)
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, TensorDataset

from cuda_findings import Finding, Setup, failed
from libragrad_lightning.callbacks import Deletion, LibraGradAudit
from timm_models import create_model


class Classifier(L.LightningModule):
    """A model with dropout, so that a disturbed random stream shows."""

    def __init__(self, name: str, channels_last: bool, compiled: bool) -> None:
        super().__init__()
        small = {"embed_dim": 64, "depth": 2, "num_heads": 2} if name.startswith("vit") else {}
        size = {"img_size": 32, "patch_size": 8} if name.startswith("vit") else {}
        net = create_model(name, num_classes=4, drop_rate=0.2, **small, **size)
        if channels_last:
            net = net.to(memory_format=torch.channels_last)
        self.channels_last = channels_last
        self.net = torch.compile(net) if compiled else net

    def configure_model(self) -> None:
        if self.device_mesh is None or isinstance(self.net, FSDPModule):
            return
        mesh = self.device_mesh["data_parallel"]
        for part in (*self.net.blocks, self.net):
            fully_shard(part, mesh=mesh)

    def forward(self, images: Tensor) -> Tensor:
        if self.channels_last:
            images = images.to(memory_format=torch.channels_last)
        scores: Tensor = self.net(images)
        return scores

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-2, momentum=0.9)


@dataclass(frozen=True)
class Setting:
    """What a run is like."""

    trainer: Mapping[str, Any] = field(default_factory=dict)
    model: str = "vit_tiny_patch16_224"
    channels_last: bool = False
    compiled: bool = False
    benchmark: bool = False
    needs_cuda: bool = False
    strategy: Callable[[], Strategy] | None = None
    audit: Mapping[str, Any] = field(default_factory=dict)


SETTINGS = {
    "32-true": Setting(),
    "bf16-mixed": Setting({"precision": "bf16-mixed"}),
    "bf16-mixed, deletion in bfloat16": Setting(
        {"precision": "bf16-mixed"}, audit={"deletion": Deletion(precision="bfloat16")}
    ),
    "16-mixed, with its scaler": Setting({"precision": "16-mixed"}, needs_cuda=True),
    "bf16-true": Setting({"precision": "bf16-true"}),
    "16-true": Setting({"precision": "16-true"}, needs_cuda=True),
    "bf16-true, explained in bfloat16": Setting(
        {"precision": "bf16-true"}, audit={"precision": "module"}
    ),
    "torch.compile": Setting(compiled=True, needs_cuda=True),
    "channels last, ResNet": Setting(model="test_resnet", channels_last=True),
    "ConvNeXt": Setting(model="test_convnext"),
    "cudnn.benchmark": Setting(benchmark=True),
    "not deterministic": Setting({"deterministic": False}),
    "accumulated gradients, clipped": Setting(
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}
    ),
    "FSDP2, one process": Setting(strategy=lambda: ModelParallelStrategy(1, 1), needs_cuda=True),
    "FSDP2, bf16-true": Setting(
        {"precision": "bf16-true"}, strategy=lambda: ModelParallelStrategy(1, 1), needs_cuda=True
    ),
    "FSDP1, one process": Setting(strategy=FSDPStrategy, needs_cuda=True),
    "FSDP1, 16-mixed, with its scaler": Setting(
        {"precision": "16-mixed"}, strategy=FSDPStrategy, needs_cuda=True
    ),
    "DDP, one process": Setting(strategy=DDPStrategy, needs_cuda=True),
}


def neutrality_findings(setup: Setup) -> Iterator[Finding]:
    """Yield the number of tensors and values in which runs with and without an audit differ."""
    for name, setting in SETTINGS.items():
        if setting.needs_cuda and not setup.on_cuda:
            continue
        try:
            yield compared(name, setting, setup)
        except Exception as error:  # one setting says nothing about the others
            yield failed(name, error)


def compared(name: str, setting: Setting, setup: Setup) -> Finding:
    """Run a setting with the audit and without it, twice."""
    first, values = digest_of_run(setting, setup, audited=False)
    audited, values = digest_of_run(setting, setup, audited=True)
    second, _ = digest_of_run(setting, setup, audited=False)
    steady = {key for key in first if first[key] == second[key]}
    differing = [key for key in steady if audited[key] != first[key]]
    error = values.get("audit/completeness_error/libra", float("nan"))
    note = f"{len(steady)} compared; completeness error of Libra {error:.1e}"
    if len(steady) < len(first):
        note += f"; {len(first) - len(steady)} differ between two runs without an audit"
    return Finding(name, len(differing), 0, note + "; ".join(["", *differing[:3]]))


def digest_of_run(
    setting: Setting, setup: Setup, audited: bool
) -> tuple[dict[str, str], Mapping[str, float]]:
    """Return the digests of all that a run leaves behind, and what it logged."""
    L.seed_everything(7, verbose=False)
    module = Classifier(setting.model, setting.channels_last, setting.compiled)
    callbacks = [_audit(setting)] if audited else []
    defaults = {"max_epochs": 2, "deterministic": True, "benchmark": setting.benchmark}
    with _quiet(), tempfile.TemporaryDirectory() as folder, _flags_put_back():
        trainer = L.Trainer(
            callbacks=callbacks,
            accelerator=setup.device.type,
            devices=1,
            default_root_dir=folder,
            strategy=setting.strategy() if setting.strategy else "auto",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **(defaults | dict(setting.trainer)),
        )
        trainer.fit(module, _loader(setting, shuffle=True), _loader(setting))
        logged = {k: float(v) for k, v in trainer.callback_metrics.items()}
    return dict(_left_behind(trainer, module)), logged


def _audit(setting: Setting) -> LibraGradAudit:
    return LibraGradAudit(max_samples=8, print_summary=False, num_images=0, **setting.audit)


def _loader(setting: Setting, shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    side = 32 if setting.model.startswith("vit") else 64
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(32, 3, side, side, generator=generator)
    labels = torch.randint(4, (32,), generator=generator)
    masks = torch.zeros(32, side, side, dtype=torch.bool)
    masks[:, 8:24, 8:24] = True
    images[:, :, 8:24, 8:24] += labels[:, None, None, None]
    return DataLoader(TensorDataset(images, labels, masks), 8, shuffle=shuffle)


def _left_behind(trainer: L.Trainer, module: nn.Module) -> Iterator[tuple[str, str]]:
    for name, tensor in module.state_dict().items():
        yield name, _digest(tensor)
    for name, parameter in module.named_parameters():
        yield f"gradient of {name}", _digest(parameter.grad)
    for number, optimizer in enumerate(trainer.optimizers):
        yield f"optimizer {number}", _digest(optimizer.state_dict())
    yield "scaler", _digest(trainer.precision_plugin.state_dict())
    yield "loss", _digest(trainer.callback_metrics["val_loss"])
    yield "random stream of the CPU", _digest(torch.get_rng_state())
    if torch.cuda.is_initialized():
        yield "random stream of CUDA", _digest(torch.cuda.get_rng_state())
    yield "cuDNN", str((torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic))
    yield "TF32", str((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))


def _digest(value: object) -> str:
    if isinstance(value, DTensor):
        value = value.to_local()
    if isinstance(value, Tensor):
        raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return hashlib.sha256(raw).hexdigest()[:16]
    if isinstance(value, Mapping):
        return str({k: _digest(v) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return str([_digest(v) for v in value])
    return repr(value)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _flags_put_back() -> Iterator[None]:
    """Put back what a Trainer leaves as it set it, and end its process group."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
        if dist.is_initialized():
            dist.destroy_process_group()
