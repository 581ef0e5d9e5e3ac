"""What an explanation costs, as ratios to a plain forward and backward pass in the same run.

    python benchmarks/explanation_cost.py [--models NAME ...] [--batch 8] [--rounds 5]

The unit is one forward pass and one `torch.autograd.grad` with respect to z0, weights not
differentiated. Rounds alternate between the contestants; the median is reported.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import libragrad_lightning  # noqa: F401  (repairs torchvision before timm imports it)

# isort: split
import timm
import torch
from torch import Tensor
from tqdm import tqdm

from libragrad_lightning.attribution import METHODS, capture, logit, reward_gradient
from libragrad_lightning.backward import LIBRA, PLAIN, grad, read_graph
from libragrad_lightning.models import TokenModel, explanation_state, read_token_model


def contestants(model: TokenModel, images: Tensor) -> dict[str, Callable[[], object]]:
    """Return what is timed, the unit first."""

    def recorded() -> tuple[object, Tensor]:
        recording = model.record(images)
        target = recording.logits.detach().argmax(1)
        return recording, reward_gradient(recording.logits.detach(), target, logit)

    def plain() -> object:
        recording, gradient = recorded()
        return torch.autograd.grad(recording.logits, recording.features[0], gradient)

    def ruled(rules: object) -> Callable[[], object]:
        def run() -> object:
            recording, gradient = recorded()
            return grad(recording.logits, recording.features[0], gradient, rules=rules)

        return run

    def method(name: str) -> Callable[[], object]:
        def run() -> object:
            recording, gradient = recorded()
            wants = name == "genatt"
            return METHODS[name](capture(recording, gradient, LIBRA, attention=wants))

        return run

    def reading() -> object:
        return read_graph([read_once.logits], [read_once.features[0]], LIBRA)

    read_once = model.record(images)
    return {
        "forward + backward (unit)": plain,
        "grad, PLAIN": ruled(PLAIN),
        "grad, LIBRA": ruled(LIBRA),
        "FullGrad+ under LIBRA, all captures": method("fullgrad_plus"),
        "GenAtt under LIBRA": method("genatt"),
        "reading the graph alone": reading,
    }


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
    parser.add_argument("--models", nargs="+", default=["vit_tiny_patch16_224"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.models:
        module = timm.create_model(name, num_classes=10).eval()
        images = torch.randn(arguments.batch, *module.pretrained_cfg["input_size"])
        with explanation_state(module):
            found = medians(contestants(read_token_model(module), images), arguments.rounds, name)
        unit = next(iter(found.values()))
        print(f"\n{name}, batch {arguments.batch}: unit {unit:.3f} s")
        for contestant, value in found.items():
            print(f"  {value / unit:6.3f}  {contestant}")


if __name__ == "__main__":
    main()
