"""How much memory explanations and audits need on a device, and what they do when it runs out."""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_cost import Trained, gradient, loader, model_of
from cuda_findings import Finding, Setup, tried
from libragrad_lightning import explain
from libragrad_lightning.backward import PLAIN
from libragrad_lightning.callbacks import LibraGradAudit
from libragrad_lightning.models import explanation_state


def memory_findings(setup: Setup) -> Iterator[Finding]:
    """Yield what is found of memory; nothing on a CPU, where torch does not count it."""
    if setup.on_cuda:
        yield from tried([memory_cost, memory_that_runs_out, beside_training], setup)


def memory_cost(setup: Setup) -> Iterator[Finding]:
    """Yield the peak memory of explanations over that of a training step."""
    cases = {"vit_small_patch16_224": 32, "convnext_tiny": 32, "vit_large_patch14_clip_336": 16}
    for name, batch in cases.items():
        module, size = model_of(name, setup)
        images = torch.randn(batch, *size, device=setup.device)
        labels = torch.zeros(batch, dtype=torch.long, device=setup.device)
        training = setup.peak(lambda m=module, i=images, t=labels: _training_step(m, i, t))
        module.zero_grad(set_to_none=True)
        with explanation_state(module):
            plain = setup.peak(lambda m=module, i=images: gradient(m, i, PLAIN))
        ours = setup.peak(
            lambda m=module, i=images: explain(m, i, batch_size=len(i), progress=False)
        )
        what = f"{name}, batch {batch}: peak of `explain`"
        yield Finding(f"{what} / plain gradient's", ours / plain, 1.05, f"{ours:.2f} GiB")
        yield Finding(f"{what} / a training step's", ours / training, None, f"{training:.2f} GiB")


def _training_step(module: nn.Module, images: Tensor, labels: Tensor) -> None:
    F.cross_entropy(module(images), labels).backward()


def memory_that_runs_out(setup: Setup) -> Iterator[Finding]:
    """Yield how much an audit changes that has to halve its batches, since memory is small."""
    torch.manual_seed(0)
    module = Trained("vit_small_patch16_224").to(setup.device)
    roomy = _validated(setup, module)
    module.to(setup.device)
    with _allowed(torch.cuda.memory_allocated(setup.device) / 2**30 + 1.5, setup):
        narrow = _validated(setup, module)
    keys = [k for k in roomy if k.startswith(("audit/mif", "audit/lif", "audit/segmentation"))]
    difference = max(abs(roomy[k] - narrow[k]) for k in keys)
    note = f"{roomy['audit/peak_memory_gib']:.2f} GiB, then {narrow['audit/peak_memory_gib']:.2f}"
    yield Finding("audit of 128 images at once in 1.5 GiB: metrics", difference, 0.02, note)


def beside_training(setup: Setup) -> Iterator[Finding]:
    """Yield whether ViT-L at 336 is audited with little more memory than its own training has."""
    name, batch = "vit_large_patch14_clip_336", 16
    with _allowed(math.inf, setup):
        torch.cuda.reset_peak_memory_stats(setup.device)
        seconds = setup.seconds(lambda: _fitted(setup, name, batch, []))
        training = torch.cuda.max_memory_reserved(setup.device) / 2**30
    for share in (1.5, 1.1):
        audit = _audit(max_samples=32, metrics=["completeness_error", "segmentation_ap"])
        with _allowed(share * training, setup):
            logged = _fitted(setup, name, batch, [audit])
        finite = all(math.isfinite(v) for k, v in logged.items() if k.startswith("audit/"))
        note = f"audit {logged['audit/seconds']:.1f} s, peak {logged['audit/peak_memory_gib']:.1f}"
        note += f" GiB; {2 * batch} images of training take {seconds:.1f} s and {training:.1f} GiB"
        what = f"{name}, bf16-mixed, {share} times the memory of training: values that are missing"
        yield Finding(what, float(not finite), 0, note)


@contextmanager
def _allowed(gib: float, setup: Setup) -> Iterator[None]:
    """Leave this process no more memory than that."""
    gc.collect()
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(setup.device).total_memory / 2**30
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib / whole), setup.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, setup.device)
        torch.cuda.empty_cache()


def _audit(**arguments: Any) -> LibraGradAudit:
    return LibraGradAudit(num_images=0, print_summary=False, **arguments)


def _fitted(
    setup: Setup, name: str, batch: int, callbacks: list[L.Callback]
) -> Mapping[str, float]:
    torch.manual_seed(0)
    trainer = _trainer(setup, callbacks, precision="bf16-mixed", max_epochs=1)
    trainer.fit(Trained(name), loader(2 * batch, 336, batch), loader(32, 336, batch))
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


def _validated(setup: Setup, module: L.LightningModule) -> Mapping[str, float]:
    trainer = _trainer(setup, [_audit(max_samples=128, batch_size=128)])
    trainer.validate(module, loader(128, 224, 16), verbose=False)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


def _trainer(setup: Setup, callbacks: list[L.Callback], **arguments: Any) -> L.Trainer:
    return L.Trainer(
        callbacks=callbacks,
        default_root_dir=tempfile.mkdtemp(),
        accelerator=setup.device.type,
        devices=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
