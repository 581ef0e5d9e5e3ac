"""Measures what deletion curves cost: against bare token-forwards, and against Quantus.

    python benchmarks/deletion_cost.py                 # ViT-S/16 at 224, 64 images, 9 levels
    python benchmarks/deletion_cost.py --quantus       # beside captum and Quantus 0.6

The unit of the first is the time of as many tokens in plain forward passes of the full sequence, at
the best of several batch sizes. All ratios are of one run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from libragrad_lightning import explain
from libragrad_lightning.models import TokenModel, explanation_state, read_token_model
from libragrad_lightning.perturbation import LEVELS, deletion_logits
from timm_models import create_model

BATCH_SIZES = (8, 16, 32, 64)
QUANTUS_STEPS = 8
"""Quantus wants the number of pixels to be a multiple of it."""


def seconds(run: Callable[[], object]) -> float:
    """Return how long a call takes; synchronises with the device."""
    _wait()
    start = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - start


def processor_seconds(run: Callable[[], object]) -> float:
    """Return how long a call keeps the processor busy, all threads together."""
    start = time.process_time()
    run()
    return time.process_time() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.no_grad()
def seconds_per_token(model: nn.Module, images: Tensor, tokens: int) -> tuple[float, int]:
    """Return the least time per token of plain forward passes, and the batch size that has it."""
    best = (float("inf"), 0)
    for size in tqdm([s for s in BATCH_SIZES if s <= len(images)], "Plain", leave=False):
        model(images[:size])
        taken = min(seconds(lambda size=size: model(images[:size])) for _ in range(3))
        best = min(best, (taken / (size * tokens), size))
    return best


def against_forwards(model: nn.Module, images: Tensor) -> None:
    """Print the time of both curves over that of as many tokens in plain forward passes."""
    read = read_token_model(model, images)
    with explanation_state(model):
        grid = read.grid(images)
        patches, prefix = grid[0] * grid[1], read.prefix(images)
        per_token, size = seconds_per_token(model, images, patches + prefix)
        scores = {"a": torch.randn(len(images), patches, device=images.device)}
        read.can_drop_tokens(images)
        ours = seconds(lambda: deletion_logits(read, images, scores, batch_size=size))
    tokens = sum(patches - int(level * patches + 1e-9) + prefix for level in LEVELS)
    unit = 2 * len(images) * tokens * per_token
    print(f"MIF + LIF, {len(LEVELS)} levels, {len(images)} images: {ours:.1f} s")
    print(f"as many tokens in plain forward passes at batch {size}: {unit:.1f} s")
    print(f"ratio {ours / unit:.3f}")


def against_quantus(model: nn.Module, images: Tensor) -> None:
    """Print the time of captum and Quantus over ours, for as many levels in both orders.

    With explanations; once with the model read anew, and once with its reading at hand.
    """
    import quantus
    from captum.attr import InputXGradient

    labels = model(images).argmax(1).detach()
    known = read_token_model(model, images)

    def theirs() -> None:
        maps = InputXGradient(model).attribute(images, target=labels).sum(1, keepdim=True)
        metric = quantus.PixelFlipping(
            features_in_step=images[0, 0].numel() // QUANTUS_STEPS,
            perturb_baseline="black",
            disable_warnings=True,
        )
        for ordered in (maps, -maps):
            metric(
                model=model,
                x_batch=images.numpy(),
                y_batch=labels.numpy(),
                a_batch=ordered.detach().numpy(),
                device="cpu",
                batch_size=16,
            )

    def ours(reading: TokenModel | None = None) -> None:
        read = reading or read_token_model(model, images)
        explanation = explain(
            model, images, method="input_x_gradient", sums=(), reading=read, progress=False
        )
        with explanation_state(model):
            scores = {"a": explanation.attribution}
            deletion_logits(read, images, scores, LEVELS[:QUANTUS_STEPS], batch_size=16)

    ours(known)
    runs = {"theirs": theirs, "read anew": ours, "read before": lambda: ours(known)}
    rounds = [{name: processor_seconds(run) for name, run in runs.items()} for _ in range(3)]
    for name in ("read anew", "read before"):
        ratios = sorted(found["theirs"] / found[name] for found in rounds)
        print(f"captum InputXGradient + Quantus PixelFlipping over ours, {name}: {ratios[1]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--quantus", action="store_true", help="compare with captum and Quantus")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = create_model(arguments.model, num_classes=10).eval().to(arguments.device)
    images = torch.randn(arguments.images, *model.pretrained_cfg["input_size"])
    run = against_quantus if arguments.quantus else against_forwards
    run(model, images.to(arguments.device))


if __name__ == "__main__":
    main()
