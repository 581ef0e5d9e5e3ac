"""What an explanation costs, as ratios to a plain forward and backward pass in the same run.

    python benchmarks/explanation_cost.py [--models NAME ...] [--methods NAME ...]
        [--batch 4] [--rounds 5]

The unit is one undisturbed forward pass and one `torch.autograd.grad` to the pixels, weights not
differentiated. Rounds alternate between the contestants, so that other work on the machine meets
all of them; the median is reported.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from libragrad_lightning import explain
from libragrad_lightning.attribution import METHODS, logit
from libragrad_lightning.attribution.attention_methods import needs_attention
from libragrad_lightning.attribution.capture import capture
from libragrad_lightning.attribution.rewards import reward_gradient
from libragrad_lightning.backward import LIBRA, PLAIN, ConstantObserver, grad
from libragrad_lightning.backward.graph import annotate_graph
from libragrad_lightning.models import TokenModel, explanation_state, read_token_model
from timm_models import create_model

UNIT = "forward + ordinary gradient (unit)"
EXPLAINED: dict[str, dict[str, Any]] = {
    "by default": {},
    "with the sums of the logit": {"sums": ("reward", "logit")},
    "the logit": {"reward": "logit"},
    "plain input x gradient, no sums": {
        "method": "input_x_gradient",
        "rules": "plain",
        "sums": (),
    },
}


def contestants(
    module: nn.Module, images: Tensor, methods: Sequence[str]
) -> dict[str, Callable[[], object]]:
    """Return what is timed, the unit first. Call it inside of `explanation_state`."""
    model = read_token_model(module, images)
    kept, kept_pixels = _forward(module, images)
    return {
        UNIT: lambda: torch.autograd.grad(*_forward(module, images)),
        "grad, PLAIN": lambda: grad(*_forward(module, images), rules=PLAIN),
        "grad, LIBRA": lambda: grad(*_forward(module, images), rules=LIBRA),
        "grad, LIBRA, with all biases": lambda: _with_biases(module, images),
        **{f"{m} under LIBRA, at all blocks": partial(_method, m, model, images) for m in methods},
        **{
            f"explain, {what}, read before": partial(
                explain, module, images, reading=model, progress=False, **settings
            )
            for what, settings in EXPLAINED.items()
        },
        "reading the graph alone": lambda: annotate_graph([kept], [kept_pixels], LIBRA),
        "backward alone, ordinary": lambda: torch.autograd.grad(
            kept, kept_pixels, retain_graph=True
        ),
        "backward alone, LIBRA": lambda: grad(kept, kept_pixels, rules=LIBRA, retain_graph=True),
    }


def _forward(module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    pixels = images.clone().requires_grad_()
    return module(pixels).amax(1).sum(), pixels


def _with_biases(module: nn.Module, images: Tensor) -> object:
    contributions: list[Tensor] = []
    with ConstantObserver():
        score, pixels = _forward(module, images)
    return grad(score, pixels, on_bias=lambda _, c: contributions.append(c.sum())), contributions


def _method(name: str, model: TokenModel, images: Tensor) -> object:
    recording = model.record(images)
    logits = recording.logits.detach()
    of_reward = reward_gradient(logits, logits.argmax(1), logit)
    method = METHODS[name]
    return method(capture(recording, of_reward, LIBRA, attention=needs_attention(method)))


def medians(timed: dict[str, Callable[[], object]], rounds: int, progress: str) -> dict[str, float]:
    """Return the median seconds of each contestant."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for round_ in tqdm(range(rounds + 1), progress, leave=False):
        for name, run in timed.items():
            start = time.perf_counter()
            run()
            if round_:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Print one table per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["vit_small_patch16_224"])
    parser.add_argument("--methods", nargs="+", default=["fullgrad_plus"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.models:
        module = create_model(name, num_classes=10).eval()
        images = torch.randn(arguments.batch, *module.pretrained_cfg["input_size"])
        with explanation_state(module):
            found = medians(contestants(module, images, arguments.methods), arguments.rounds, name)
        print(f"\n{name}, batch {arguments.batch}: unit {found[UNIT]:.3f} s")
        for contestant, value in found.items():
            print(f"  {value / found[UNIT]:6.3f}  {contestant}")
        ratio = found["backward alone, LIBRA"] / found["backward alone, ordinary"]
        print(f"  {ratio:6.3f}  backward alone: LIBRA / ordinary")


if __name__ == "__main__":
    main()
