"""Measures how completely the backward-graph engine decomposes a model at its pixels."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from libragrad_lightning.backward import LIBRA, ConstantObserver, RuleSet, grad
from libragrad_lightning.backward.biases import BiasKind, BiasSite
from libragrad_lightning.backward.graph import AnnotatedGraph, annotate_graph
from libragrad_lightning.models import explanation_state


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
class ModelDecomposition:
    """One recorded forward pass and its decompositions.

    Attributes:
        decompositions: One for every rule set.
        graph: What was read of the graph.
        identical: Whether the scores equal those of an ordinary forward pass bit for bit.
        contrast: How much the scores of the two images differ, relative to their norm: none of the
            decompositions would mean anything if the images no longer mattered.
    """

    decompositions: list[Decomposition]
    graph: AnnotatedGraph
    identical: bool
    contrast: float


@contextmanager
def double_precision() -> Iterator[None]:
    """Keep models from casting to float32 inside, which would hide errors below 1e-7."""
    single = Tensor.float
    Tensor.float = Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.float = single  # type: ignore[method-assign]


def class_scores(output: object) -> Tensor:
    """Return `[B, K]`: the logits, or the spatial mean of the features of a headless model."""
    tensor = output[-1] if isinstance(output, (list, tuple)) else output
    assert isinstance(tensor, Tensor)
    return tensor.flatten(2).mean(2) if tensor.dim() > 2 else tensor


def decompose_model(
    model: nn.Module,
    images: Tensor,
    rule_sets: tuple[RuleSet, ...],
    scores: Callable[[Any], Tensor] = class_scores,
) -> ModelDecomposition:
    """Decompose the largest score of two images at the pixels.

    Args:
        model: The model, in evaluation mode.
        images: `[2, 3, H, W]`.
        rule_sets: The rule sets.
        scores: From what the model returns to scores `[2, K]`.
    """
    undisturbed = scores(_without_memory(model)(images)).detach()
    with explanation_state(model), ConstantObserver():
        pixels = images.clone().requires_grad_()
        logits = scores(model(pixels))
        graph = annotate_graph([logits], [pixels], LIBRA)
        results = [decompose(logits, pixels, rules) for rules in rule_sets]
    first, second = logits.detach()
    contrast = float((first - second).norm() / torch.stack([first, second]).norm())
    return ModelDecomposition(results, graph, torch.equal(logits.detach(), undisturbed), contrast)


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
