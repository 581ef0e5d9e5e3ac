"""What an audit costs, over the passes that nothing can spare it, in the same run.

    python benchmarks/audit_cost.py [--models NAME ...] [--images 64] [--side 224]
        [--metrics NAME ...]

The floor is the time of bare forward and backward passes of timm's own modules: one forward, one
ordinary backward to z0 for each rule set, and what deletion runs of the model behind z0, with
as many tokens as are left. Each is taken at the best of several batch sizes. Seconds are those of
the processor, with one thread; the audit has its model read before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from libragrad_lightning.audit import (
    AuditConfig,
    AuditResult,
    AuditRun,
    ExplainedChunk,
    Learned,
    ProbeGroup,
    Readings,
    Samples,
    Source,
    audit_config,
    images_added_up,
    probe_request,
)
from libragrad_lightning.audit.config import Deletion
from libragrad_lightning.audit.replay import DirectCall, ModelCall
from libragrad_lightning.models import TokenModel, explanation_state
from timm_models import create_model

MODELS = ("vit_small_patch16_224", "convnext_tiny", "resnet50")
BATCH_SIZES = (8, 32)


class Silent:
    """Looks on and does nothing."""

    def model_read(self, model: TokenModel, images: Tensor) -> None:
        """Do nothing."""

    def chunk_explained(self, chunk: ExplainedChunk) -> None:
        """Do nothing."""

    def memory_ran_out(self, size: int) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Bare:
    """A model of timm in two parts: what makes z0 of images, and logits of z0."""

    stem: Callable[[Tensor], Tensor]
    rest: Callable[[Tensor], Tensor]
    prefix: int = 0
    drops: bool = False


def bare(model: nn.Module) -> Bare:
    """Return a model's own modules, called one after the other."""
    if hasattr(model, "patch_embed"):
        return Bare(
            lambda x: model.norm_pre(model._pos_embed(model.patch_embed(x))),
            lambda z: model.forward_head(model.norm(model.blocks(z))),
            model.num_prefix_tokens,
            drops=True,
        )
    if hasattr(model, "stages"):
        return Bare(model.stem, lambda z: model.forward_head(model.norm_pre(model.stages(z))))
    first = nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool)
    layers = nn.Sequential(model.layer1, model.layer2, model.layer3, model.layer4)
    return Bare(first, lambda z: model.forward_head(layers(z)))


def least(run: Callable[[int], object]) -> float:
    """Return the least seconds per row of something that is run on so many rows."""
    found = []
    for size in BATCH_SIZES:
        run(size)
        for _ in range(2):
            start = time.process_time()
            run(size)
            found.append((time.process_time() - start) / size)
    return min(found)


def floor(model: nn.Module, images: Tensor, config: AuditConfig) -> float:
    """Return the seconds of the passes of an audit. Call it inside of `explanation_state`."""
    parts = bare(model)

    def explained(size: int) -> None:
        z0 = parts.stem(images[:size]).detach().requires_grad_()
        logits = parts.rest(z0)
        for _ in config.rules:
            torch.autograd.grad(logits, z0, torch.ones_like(logits), retain_graph=True)

    def deleted(level: float) -> float:
        def run(size: int) -> None:
            kept = z0[:size]
            if parts.drops:
                kept = kept[:, int(level * (z0.shape[1] - parts.prefix) + 1e-9) :]
            parts.rest(kept)

        return least(run)

    seconds = least(explained)
    if "deletion" in config.needs:
        with torch.no_grad():
            z0 = parts.stem(images[: max(BATCH_SIZES)])
            if z0.dim() == 4:  # in which convolutions are fastest
                z0 = z0.contiguous(memory_format=torch.channels_last)
            levels = config.levels if parts.drops else config.levels[:1]
            rows = [deleted(level) for level in tqdm(levels, "Floor", leave=False)]
        of_all = sum(rows) / len(rows) * len(config.levels)
        seconds += 2 * len(config.rules) * of_all
    return len(images) * seconds


def audited(model: nn.Module, samples: Samples, config: AuditConfig, readings: Readings) -> float:
    """Return the seconds of an audit. Call it inside of `explanation_state`."""
    learned = Learned(ModelCall(DirectCall(model, "the model")), "multiclass", 10)
    numbers = tuple(range(len(samples)))
    sizes = config.batch_size, images_added_up(config)
    run = AuditRun(model, learned, config, AuditResult(), Silent(), *sizes, readings)
    start = time.process_time()
    run.add([ProbeGroup(numbers, numbers, samples)])
    run.measurement.values()
    return time.process_time() - start


def main() -> None:
    """Print one row per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--metrics", nargs="+")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = audit_config(
        source=Source(),
        request=probe_request("first", arguments.images, 0),
        rules=("plain", "libra"),
        method="fullgrad_plus",
        target="predicted",
        reward="log_odds",
        metrics=arguments.metrics,
        deletion=Deletion(),
        batch_size=32,
        unknown="error",
        backbone=None,
        blocks=None,
        precision="float32",
    )
    shape = (arguments.images, 3, arguments.side, arguments.side)
    masks = torch.zeros(arguments.images, *shape[2:], dtype=torch.bool)
    masks[:, : arguments.side // 2, : arguments.side // 2] = True
    samples = Samples(torch.randn(shape), masks=masks)
    print("| model | first audit | audit | floor | audit / floor |")
    print("|---|--:|--:|--:|--:|")
    for name in arguments.models:
        model, readings = create_model(name, num_classes=10).eval(), Readings()
        with explanation_state(model):
            first = audited(model, samples[slice(0, 8)], config, readings)
            least_possible = floor(model, samples.pixels, config)
            seconds = audited(model, samples, config, readings)
        print(
            f"| {name} | {first:.1f} s for 8 | {seconds:.1f} s | {least_possible:.1f} s "
            f"| {seconds / least_possible:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
