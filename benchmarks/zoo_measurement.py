"""Measures how completely one architecture is decomposed by the backward-graph engine."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from completeness import class_scores, decompose_model, double_precision
from libragrad_lightning.backward import LIBRA, PLAIN, Flow
from libragrad_lightning.backward.graph import annotate_graph
from zoo_architectures import (
    IMAGES,
    Shape,
    build,
    empty_model,
    module_of,
    random_images,
    smallest_shape,
)


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
    graph = annotate_graph([logits], [pixels], LIBRA)
    module, family = module_of(name), type(model).__name__
    operations = sorted({_description(r.node.name(), r.flows) for r in graph.nodes})
    digest = hashlib.sha256("\n".join([module, family, *operations]).encode()).hexdigest()[:16]
    return Trace(name, module, family, _size(model), shape, digest)


def _description(name: str, flows: tuple[Flow, ...]) -> str:
    # Concatenations differ in their number of operands; which kinds they have is what matters.
    return f"{name} {sorted({flow.value for flow in flows})}"


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def measure(name: str, shape: Shape) -> Measurement:
    """Decompose the largest logit of two random images under `LIBRA` and `PLAIN`."""
    start = time.perf_counter()
    _reset_peak()
    model = build(name, shape)
    images = random_images(shape, seed=2)
    with double_precision():
        double = decompose_model(model, images, (LIBRA, PLAIN))
    single = decompose_model(model.float(), images.float(), (LIBRA,))
    libra, plain = double.decompositions
    return Measurement(
        libra=libra.error,
        plain=plain.error,
        libra_float32=single.decompositions[0].noise,
        identical=double.identical and single.identical,
        unknown=_counted(double.graph.unknown() | single.graph.unknown()),
        indirect=_counted(libra.indirect),
        contrast=double.contrast,
        nodes=len(double.graph.nodes),
        seconds=round(time.perf_counter() - start, 1),
        megabytes=_peak(),
    )


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} x{count}" for name, count in sorted(counter.items()))


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Return the largest resident memory since the last reset, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) // 1024
