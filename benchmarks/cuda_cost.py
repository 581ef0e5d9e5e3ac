"""What gradients, explanations, metrics and audits take on a device, as ratios within one run."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from cuda_findings import Finding, Setup, tried
from libragrad_lightning import explain
from libragrad_lightning.backward import LIBRA, PLAIN, RuleSet, grad
from libragrad_lightning.callbacks import Deletion, LibraGradAudit
from libragrad_lightning.metrics.functional import segmentation_average_precision
from libragrad_lightning.models import explanation_state, read_token_model
from libragrad_lightning.perturbation import LEVELS, deletion_logits
from segmentation_ap import example, scikit_learn
from timm_models import create_model

ROUNDS = 5


def cost_findings(setup: Setup) -> Iterator[Finding]:
    """Yield what is found of time."""
    sections: list[Callable[[Setup], Iterator[Finding]]] = [
        precision_cost,
        audit_cost,
        gradient_cost,
    ]
    return tried(sections, setup)


def model_of(name: str, setup: Setup) -> tuple[nn.Module, tuple[int, int, int]]:
    torch.manual_seed(0)
    module = create_model(name, num_classes=10).eval().to(setup.device)
    size: tuple[int, int, int] = module.pretrained_cfg["input_size"]
    return module, size


def gradient_cost(setup: Setup) -> Iterator[Finding]:
    """Yield the cost of a gradient under LIBRA, and of an explanation, over the ordinary one."""
    limits = {"vit_small_patch16_224": 1.05, "vit_base_patch16_224": 1.05} | {
        "swin_tiny_patch4_window7_224": 1.05,
        "convnext_tiny": 1.10,
        "resnet50": 1.10,
    }
    names = {"test_vit": math.inf} if setup.tiny else limits
    for name, limit in names.items():
        module, size = model_of(name, setup)
        for batch in (2,) if setup.tiny else (8, 32, 128):
            images = torch.randn(batch, *size, device=setup.device)
            with explanation_state(module):
                plain, libra = setup.medians(
                    ROUNDS,
                    lambda m=module, i=images: gradient(m, i, PLAIN),
                    lambda m=module, i=images: gradient(m, i, LIBRA),
                )
            reading = read_token_model(module, images)
            first = setup.seconds(lambda m=module, i=images: read_token_model(m, i))
            (explained,) = setup.medians(
                ROUNDS,
                lambda m=module, i=images, r=reading: explain(
                    m, i, batch_size=len(i), progress=False, reading=r
                ),
            )
            note = f"{1e3 * plain:.1f} ms"
            yield Finding(f"{name}, batch {batch}: LIBRA / PLAIN", libra / plain, limit, note)
            note = f"reading the model takes {first:.2f} s, once"
            yield Finding(
                f"{name}, batch {batch}: `explain` / PLAIN", explained / plain, None, note
            )


def gradient(module: nn.Module, images: Tensor, rules: RuleSet) -> object:
    pixels = images.clone().requires_grad_()
    return grad(module(pixels).amax(1).sum(), pixels, rules=rules)


def precision_cost(setup: Setup) -> Iterator[Finding]:
    """Yield the cost of average precision beside scikit-learn and torchmetrics."""
    from torchmetrics.functional.classification import binary_average_precision

    maps, mask = example(4 if setup.tiny else 64, 32 if setup.tiny else 224)
    maps, mask, on_cpu = maps.to(setup.device), mask.to(setup.device), (maps, mask)
    slow = setup.seconds(lambda: scikit_learn(on_cpu[0][:4], on_cpu[1][:4])) / 4
    theirs, ours = setup.medians(
        ROUNDS,
        lambda: [
            binary_average_precision(m.sigmoid().flatten(), t.flatten().long())
            for m, t in zip(maps, mask, strict=True)
        ],
        lambda: segmentation_average_precision(maps, mask),
    )
    ours, theirs = ours / len(maps), theirs / len(maps)
    note = f"{1e6 * ours:.0f} us an image"
    limit = 1 / 100 if setup.on_cuda else math.inf
    yield Finding("average precision / scikit-learn's", ours / slow, limit, note)
    yield Finding("average precision / torchmetrics'", ours / theirs, 1.0)


class Trained(L.LightningModule):
    """A model of timm that is fine-tuned."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net = create_model(name, num_classes=10)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


def loader(count: int, side: int, batch: int) -> DataLoader[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, side, side, generator=generator)
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    masks[:, side // 4 : side // 2, side // 4 : side // 2] = True
    labels = torch.randint(10, (count,), generator=generator)
    return DataLoader(TensorDataset(images, labels, masks), batch)


def _fit(
    setup: Setup, module: L.LightningModule, callback: LibraGradAudit, count: int, batch: int
) -> Mapping[str, float]:
    side = module.net.pretrained_cfg["input_size"][1]  # type: ignore[union-attr]
    timer = L.pytorch.callbacks.Timer()
    trainer = L.Trainer(
        callbacks=[callback, timer],
        default_root_dir=tempfile.mkdtemp(),
        accelerator=setup.device.type,
        devices=1,
        max_epochs=2,
        num_sanity_val_steps=0,
        precision="bf16-mixed",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader(5 * count, side, batch), loader(count, side, batch))
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    return logged | {"training": timer.time_elapsed("train")}


def audit_cost(setup: Setup) -> Iterator[Finding]:
    """Yield the time of a whole audit over the passes that it needs, and its share of training."""
    names = ["test_vit"] if setup.tiny else ["vit_small_patch16_224", "convnext_tiny"]
    count, batch = (8, 4) if setup.tiny else (256, 64)
    for name in names:
        module, logged = _audited(setup, name, count, batch, Deletion())
        seconds = logged["audit/seconds"]
        net, size = module.net.to(setup.device).eval(), module.net.pretrained_cfg["input_size"]
        floor = _floor(setup, net, torch.randn(batch, *size, device=setup.device), count)
        note = f"{seconds:.2f} s for {count} images; completeness error of Libra "
        note += f"{logged['audit/completeness_error/libra']:.1e}"
        yield Finding(f"{name}: audit / the passes that it needs", seconds / floor, None, note)
        share = 2 * seconds / logged["training"]
        yield Finding(f"{name}: audits / a fit of {5 * count} images an epoch", share)
        _, low = _audited(setup, name, count, batch, Deletion(precision="bfloat16"))
        moved = f"logits moved by {low['audit/deletion_rounding']:.3f} of their standard deviation"
        moved += f", SRG by {abs(low['audit/srg/libra'] - logged['audit/srg/libra']):.4f}"
        what = f"{name}: audit with deletion in bfloat16 / without"
        yield Finding(what, low["audit/seconds"] / seconds, None, moved)


def _audited(
    setup: Setup, name: str, count: int, batch: int, deletion: Deletion
) -> tuple[Trained, Mapping[str, float]]:
    torch.manual_seed(0)
    module = Trained(name)
    callback = LibraGradAudit(
        max_samples=count, batch_size=batch, num_images=0, print_summary=False, deletion=deletion
    )
    return module, _fit(setup, module, callback, count, batch)


def _floor(setup: Setup, net: nn.Module, images: Tensor, count: int) -> float:
    """Return the seconds of the passes: one backward for each rule set, and all deletions."""
    chunks = count / len(images)
    with explanation_state(net):
        read = read_token_model(net, images)
        grid = read.grid(images)
        scores = {"a": torch.randn(len(images), grid[0] * grid[1], device=images.device)}
        read.can_drop_tokens(images)
        gradients, deletions = setup.medians(
            3,
            lambda: [gradient(net, images, rules) for rules in (PLAIN, PLAIN)],
            lambda: deletion_logits(read, images, scores, LEVELS, 4 * len(images)),
        )
    return chunks * (gradients + 2 * deletions)
