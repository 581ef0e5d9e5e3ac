"""What a gradient computes and allocates: matrix products, operations, peak memory.

    python benchmarks/gradient_work.py [--model vit_small_patch16_224] [--batch 4]

Counts, not times: they do not depend on how busy the machine is. Products are counted in the
backward pass alone; the last row also differentiates all weights. Floating point operations are
those of `torch.utils.flop_counter`, which takes depthwise convolutions for dense ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from libragrad_lightning import explain
from libragrad_lightning.attribution import Method
from libragrad_lightning.backward import LIBRA, ConstantObserver, grad
from libragrad_lightning.models import explanation_state, read_token_model
from timm_models import create_model

PRODUCTS = frozenset({"aten::mm", "aten::bmm", "aten::addmm", "aten::convolution_backward"})

Gradient = Callable[[Tensor, Tensor, nn.Module], object]
"""From scores `[]`, pixels and the model to gradients."""


@dataclass(frozen=True)
class Work:
    """The work of one backward pass to the pixels.

    Attributes:
        products: Number of matrix products and convolutions.
        flops: Floating point operations in them and in fused attention.
        peak: Bytes allocated by it and its forward pass together, at their maximum.
    """

    products: int
    flops: int
    peak: int


def plain(score: Tensor, pixels: Tensor, model: nn.Module) -> object:
    return torch.autograd.grad(score, pixels)


def libra(score: Tensor, pixels: Tensor, model: nn.Module) -> object:
    return grad(score, pixels, rules=LIBRA)


def libra_with_biases(score: Tensor, pixels: Tensor, model: nn.Module) -> object:
    total = torch.zeros(())

    def add(_: object, contribution: Tensor) -> None:
        total.add_(contribution.sum())

    return grad(score, pixels, rules=LIBRA, on_bias=add), total


def with_weights(score: Tensor, pixels: Tensor, model: nn.Module) -> object:
    return torch.autograd.grad(score, [pixels, *model.parameters()])


GRADIENTS: dict[str, Gradient] = {
    "plain gradient": plain,
    "LIBRA": libra,
    "LIBRA with all biases": libra_with_biases,
    "plain gradient and all weights": with_weights,
}


def work(model: nn.Module, images: Tensor, gradient: Gradient) -> Work:
    """Measure the backward pass of the largest logits of images `[B, 3, H, W]`."""
    with explanation_state(model):
        score, pixels = _recorded(model, images)
        with FlopCounterMode(display=False) as counter:
            gradient(score, pixels, model)
        score, pixels = _recorded(model, images)
        with profile(activities=[ProfilerActivity.CPU]) as backward:
            gradient(score, pixels, model)
        del score, pixels
        peak = peak_of(lambda: gradient(*_recorded(model, images), model))
    events = backward.profiler.kineto_results.events()
    products = sum(event.name() in PRODUCTS for event in events)
    return Work(products, counter.get_total_flops(), peak)


def peak_of_explain(model: nn.Module, images: Tensor, method: str | Method) -> int:
    """Return the most bytes that are allocated at once to explain images, the model read before."""
    read = read_token_model(model, images)

    def explained() -> object:
        return explain(model, images, method=method, reading=read, progress=False)

    explained()
    return peak_of(explained)


def peak_of(run: Callable[[], object]) -> int:
    """Return the most bytes that are allocated at once while something is run."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    return _peak(profiled.profiler.kineto_results.events())


def _recorded(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    pixels = images.clone().requires_grad_()
    with ConstantObserver():
        return model(pixels).amax(1).sum(), pixels


def _peak(events: list[object]) -> int:
    allocated = peak = 0
    memory = [event for event in events if event.name() == "[memory]"]
    for event in sorted(memory, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak


def main() -> None:
    """Print one row per gradient."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--batch", type=int, default=4)
    arguments = parser.parse_args()
    model = create_model(arguments.model, num_classes=10).eval()
    images = torch.randn(arguments.batch, *model.pretrained_cfg["input_size"])
    print(f"{arguments.model}, batch {arguments.batch}")
    print("| | products | GFLOP | peak MB |\n|---|--:|--:|--:|")
    for name, gradient in GRADIENTS.items():
        found = work(model, images, gradient)
        row = f"{found.products} | {found.flops / 1e9:.2f} | {found.peak / 1e6:.1f}"
        print(f"| {name} | {row} |")
    peak = peak_of_explain(model, images, "fullgrad_plus")
    print(f"| `explain`, FullGrad+, read before | | | {peak / 1e6:.1f} |")


if __name__ == "__main__":
    main()
