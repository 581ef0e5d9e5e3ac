"""Measures how completely one architecture is decomposed by the backward-graph engine."""

from __future__ import annotations

import copy
import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from zoo_architectures import (
    IMAGES,
    Shape,
    build,
    empty_model,
    module_of,
    random_images,
    smallest_shape,
)

from libragrad_lightning.backward import (
    LIBRA,
    PLAIN,
    BiasKind,
    BiasSite,
    ConstantObserver,
    Flow,
    GraphReading,
    RuleSet,
    grad,
    read_graph,
)
from libragrad_lightning.models import explanation_state


@dataclass(frozen=True)
class Trace:
    """What can be said of an architecture without computing anything.

    Attributes:
        name: The name of the architecture.
        module: The timm module that defines it.
        family: The class of the model.
        parameters: Number of parameters.
        shape: The smallest form in which it runs.
        signature: A digest of the module, the class and the set of operations, each with the flows
            of its operands under `LIBRA`.
    """

    name: str
    module: str
    family: str
    parameters: int
    shape: Shape
    signature: str


@dataclass(frozen=True)
class Decomposition:
    """A FullGrad decomposition of the explained logits.

    Attributes:
        error: |sum of all contributions - logits| / |logits|, both summed over the images.
        noise: The same difference relative to the sum of the contributions' absolute values.
        indirect: How often which operations contributed constants other than parameters: buffers
            and numbers (observed), and values that the rules hold constant (held).
    """

    error: float
    noise: float
    indirect: Counter[str]


@dataclass(frozen=True)
class Measurement:
    """How complete the decompositions of one architecture are.

    Attributes:
        libra: Error under `LIBRA` in float64.
        plain: Error of ordinary gradients in float64.
        libra_float32: Difference under `LIBRA` in float32, relative to the sum of the
            contributions' absolute values.
        identical: Whether the explained logits equal those of an ordinary forward pass bit for bit,
            in float64 and in float32.
        unknown: Operations without a role on a live path in either precision, with their number.
        indirect: Operations that contribute constants other than parameters under `LIBRA`: buffers
            and numbers of which only a `ConstantObserver` knows, and values held constant.
        contrast: How much the logits of the two images differ, relative to their norm: none of the
            decompositions would mean anything if the images no longer mattered.
        nodes: Number of graph nodes between the pixels and the logits.
        seconds: Duration of everything.
        megabytes: Peak of the process's resident memory.
    """

    libra: float
    plain: float
    libra_float32: float
    identical: bool
    unknown: str
    indirect: str
    contrast: float
    nodes: int
    seconds: float
    megabytes: int


def trace(name: str) -> Trace:
    """Trace an architecture on the meta device.

    Raises:
        ValueError: If the architecture accepts no input size.
    """
    shape = smallest_shape(name)
    model = empty_model(name, shape.arguments)
    assert model is not None
    pixels = torch.empty(IMAGES, 3, shape.size, shape.size, device="meta", requires_grad=True)
    logits = class_scores(model(pixels))
    reading = read_graph([logits], [pixels], LIBRA)
    module, family = module_of(name), type(model).__name__
    operations = sorted({_description(r.node.name(), r.flows) for r in reading.nodes})
    digest = hashlib.sha256("\n".join([module, family, *operations]).encode()).hexdigest()[:16]
    return Trace(name, module, family, _size(model), shape, digest)


def _description(name: str, flows: tuple[Flow, ...]) -> str:
    # Concatenations differ in their number of operands; which kinds they have is what matters.
    return f"{name} {sorted({flow.value for flow in flows})}"


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def class_scores(output: object) -> Tensor:
    """Return `[B, K]`: the logits, or the spatial mean of the features of a headless model."""
    tensor = output[-1] if isinstance(output, (list, tuple)) else output
    assert isinstance(tensor, Tensor)
    return tensor.flatten(2).mean(2) if tensor.dim() > 2 else tensor


def measure(name: str, shape: Shape) -> Measurement:
    """Decompose the largest logit of two random images under `LIBRA` and `PLAIN`."""
    start = time.perf_counter()
    _reset_peak()
    model = build(name, shape)
    images = random_images(shape, seed=2)
    with _double_precision():
        double = _decompose(model, images, (LIBRA, PLAIN))
    single = _decompose(model.float(), images.float(), (LIBRA,))
    libra, plain = double.decompositions
    return Measurement(
        libra=libra.error,
        plain=plain.error,
        libra_float32=single.decompositions[0].noise,
        identical=double.identical and single.identical,
        unknown=_counted(double.reading.unknown() | single.reading.unknown()),
        indirect=_counted(libra.indirect),
        contrast=double.contrast,
        nodes=len(double.reading.nodes),
        seconds=round(time.perf_counter() - start, 1),
        megabytes=_peak(),
    )


@dataclass(frozen=True)
class _Run:
    """One recorded forward pass and its decompositions."""

    decompositions: list[Decomposition]
    reading: GraphReading
    identical: bool
    contrast: float


@contextmanager
def _double_precision() -> Iterator[None]:
    """Keep models from casting to float32 inside, which would hide errors below 1e-7."""
    single = Tensor.float
    Tensor.float = Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.float = single  # type: ignore[method-assign]


def _decompose(model: nn.Module, images: Tensor, rule_sets: tuple[RuleSet, ...]) -> _Run:
    undisturbed = class_scores(_without_memory(model)(images)).detach()
    with explanation_state(model), ConstantObserver():
        pixels = images.clone().requires_grad_()
        logits = class_scores(model(pixels))
        reading = read_graph([logits], [pixels], LIBRA)
        results = [decompose(logits, pixels, rules) for rules in rule_sets]
    first, second = logits.detach()
    contrast = float((first - second).norm() / torch.stack([first, second]).norm())
    return _Run(results, reading, torch.equal(logits.detach(), undisturbed), contrast)


def _without_memory(model: nn.Module) -> nn.Module:
    """Return a copy on the same tensors; some models keep what they compute for the next call."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def decompose(logits: Tensor, pixels: Tensor, rules: RuleSet) -> Decomposition:
    """Decompose the sum over images of the largest logit, and compare the sum with it."""
    target = torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
    value = float((logits.detach() * target).sum())
    sums, magnitudes = [0.0], [0.0]
    indirect: Counter[str] = Counter()

    def add(site: BiasSite, contribution: Tensor) -> None:
        sums.append(float(contribution.sum()))
        magnitudes.append(float(contribution.abs().sum()))
        if site.kind is not BiasKind.RECORDED and magnitudes[-1] > 0:
            indirect[f"{site.kind.value} {site.operation}"] += 1

    (gradient,) = grad(
        logits, pixels, target, rules=rules, retain_graph=True, unknown="ignore", on_bias=add
    )
    at_pixels = pixels.detach() * gradient
    difference = abs(sum(sums) + float(at_pixels.sum()) - value)
    magnitude = sum(magnitudes) + float(at_pixels.abs().sum())
    return Decomposition(difference / abs(value), difference / magnitude, indirect)


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} x{count}" for name, count in sorted(counter.items()))


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Return the largest resident memory since the last reset, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) // 1024
