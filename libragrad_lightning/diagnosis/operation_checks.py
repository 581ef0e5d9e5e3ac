"""Checks the engine against this installation of torch, operation by operation.

What torch records, and what its nodes save, changes between releases, devices and builds. A release
that renames something is found here, and not by a wrong number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from libragrad_lightning.backward import LIBRA, ConstantObserver, LibraGradError, RuleSet, grad
from libragrad_lightning.backward.graph import annotate_graph
from libragrad_lightning.diagnosis.operation_examples import (
    SHAPE,
    OperationExample,
    operation_examples,
)

TOLERANCE = 1e-9
"""The largest error that is rounding, in float64."""


@dataclass(frozen=True)
class OperationCheck:
    """What was found of one operation.

    Attributes:
        name: What it is called.
        nodes: What torch records for it, and for what stands around it in the example.
        error: The largest difference from the reference, in gradients and in what contributions add
            up to, relative to the largest value; NaN if it could not be computed.
        reason: Why it could not be computed.
    """

    name: str
    nodes: tuple[str, ...]
    error: float
    reason: str = ""

    @property
    def passes(self) -> bool:
        """Whether the engine does what the rule says."""
        return self.error < TOLERANCE


def check_operations(
    rules: RuleSet = LIBRA, device: torch.device | str = "cpu"
) -> Iterator[OperationCheck]:
    """Compare LibraGrad with its definition on small examples, in float64.

    Args:
        rules: LibraGrad, perhaps with another vocabulary.
        device: Where to compute.

    Yields:
        What was found of each operation.
    """
    for example in operation_examples():
        inputs = _inputs(example, device)
        try:
            with ConstantObserver(rules.vocabulary):
                output = example.forward(*inputs)
            nodes, error = _nodes(output, inputs, rules), _error(example, inputs, output, rules)
            yield OperationCheck(example.name, nodes, error)
        except (LibraGradError, RuntimeError, AttributeError) as error:
            yield OperationCheck(example.name, (), float("nan"), str(error))


def _inputs(example: OperationExample, device: torch.device | str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(example.name))
    drawn = torch.randn(example.count, *SHAPE, generator=generator, dtype=torch.float64)
    return [x.to(device).requires_grad_() for x in drawn]


def _nodes(output: Tensor, inputs: Sequence[Tensor], rules: RuleSet) -> tuple[str, ...]:
    graph = annotate_graph([output], inputs, rules)
    return tuple(dict.fromkeys(annotated.node.name() for annotated in graph.nodes))


def _error(
    example: OperationExample, inputs: Sequence[Tensor], output: Tensor, rules: RuleSet
) -> float:
    expected = example.reference(*inputs)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).to(output.device)
    weights = weights.view_as(output)
    contributions: list[Tensor] = []
    found = grad(
        output, inputs, weights, rules=rules, on_bias=lambda _, c: contributions.append(c.sum())
    )
    wanted = torch.autograd.grad(
        expected, inputs, weights, allow_unused=True, materialize_grads=True
    )
    pairs = [*zip(found, wanted, strict=True), (output, expected)]
    with torch.no_grad():
        parts = [(x * g).sum() for x, g in zip(inputs, found, strict=True)]
        pairs.append((torch.stack([*parts, *contributions]).sum(), (output * weights).sum()))
        return max(_difference(*pair) for pair in pairs)


def _difference(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1.0))
