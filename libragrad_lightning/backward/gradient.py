"""`grad`: like `torch.autograd.grad`, under a rule set.

The forward pass has been recorded by then and is not touched: hooks are registered on the nodes of
that one graph, `torch.autograd.grad` is called once, and the hooks are removed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from libragrad_lightning.backward.biases import BiasSink, constant_leaves, watch_biases
from libragrad_lightning.backward.graph import (
    GraphReading,
    NodeReading,
    check_known,
    read_graph,
    unknown_sentence,
)
from libragrad_lightning.backward.rule_sets import LIBRA, Flow, RuleSet

UnknownPolicy: TypeAlias = Literal["error", "warn", "ignore"]

Watch: TypeAlias = Callable[[GraphReading], Iterable[RemovableHandle]]
"""Registers hooks on a graph before its gradients are computed, to look and not to change."""

_Gradients: TypeAlias = tuple[Tensor | None, ...]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    rules: RuleSet = LIBRA,
    retain_graph: bool = False,
    unknown: UnknownPolicy = "error",
    on_bias: BiasSink | None = None,
    observed: Sequence[Tensor] = (),
    watch: Sequence[Watch] = (),
) -> tuple[Tensor, ...]:
    """Compute the gradients of outputs with respect to inputs under a rule set.

    The rules apply from `outputs` down. A nonlinear target, such as a probability, stays outside of
    them: pass its ordinary gradient with respect to the logits as `grad_outputs`.

    Args:
        outputs: Tensors with a recorded graph, for example logits `[B, C]`.
        inputs: The explained tensors, leaves or inner tensors of the graph. Everything that does
            not depend on them is a constant of the explanation.
        grad_outputs: The gradient of the target with respect to each output, in its shape; may be
            omitted for scalar outputs.
        rules: The rule set.
        retain_graph: Whether the graph can be used again.
        unknown: What to do when the explained tensors flow through an operation without a role:
            raise, warn, or silently keep its ordinary gradient.
        on_bias: Called with every bias that adds to the output and its elementwise contributions.
        observed: Inner tensors of the graph whose gradients are wanted too, without explaining
            them: they change nothing about what is constant.
        watch: Register hooks that look at the gradients, such as `AttentionWatch`.

    Returns:
        One gradient for each input, then one for each observed tensor, in its shape; zeros where
        the rules prune every path.

    Raises:
        UnknownOperationError: If an operation without a role is met and `unknown` is ``"error"``.
        UnreachableInputError: If the outputs do not depend on one of the inputs.
    """
    outputs, inputs = _as_tuple(outputs), _as_tuple(inputs)
    reading = read_graph(outputs, inputs, rules)
    _apply_policy(reading, unknown)
    leaves = constant_leaves(reading) if on_bias is not None else []
    handles: list[RemovableHandle] = []
    try:
        handles += _correct(reading)
        if on_bias is not None:
            for handle in watch_biases(reading, on_bias):
                handles.append(handle)  # one by one: reading the next bias may raise
        for watcher in watch:
            handles += watcher(reading)
        gradients = torch.autograd.grad(
            outputs,
            [*inputs, *observed, *leaves],
            None if grad_outputs is None else _as_tuple(grad_outputs),
            retain_graph=retain_graph,
            allow_unused=True,
        )
    finally:
        for handle in handles:
            handle.remove()
    return tuple(
        torch.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip((*inputs, *observed), gradients, strict=False)
    )


def _as_tuple(tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)


def _apply_policy(reading: GraphReading, unknown: UnknownPolicy) -> None:
    if unknown == "error":
        check_known(reading)
    elif unknown == "warn" and reading.unknown():
        warnings.warn(unknown_sentence(reading.unknown()), stacklevel=3)


def _correct(reading: GraphReading) -> list[RemovableHandle]:
    handles = [r.node.register_hook(_hook(r)) for r in reading.nodes if _needs_hook(r)]
    for r in reading.nodes:
        if r.operation is not None and r.operation.contiguous:
            handles.append(r.node.register_prehook(_contiguous))
        if r.correction.dead_outputs:
            handles.append(r.node.register_prehook(_without(r.correction.dead_outputs)))
    return handles


def _contiguous(outgoing: _Gradients) -> _Gradients:
    return tuple(None if gradient is None else gradient.contiguous() for gradient in outgoing)


def _without(dead: tuple[int, ...]) -> Callable[[_Gradients], _Gradients]:
    def hook(outgoing: _Gradients) -> _Gradients:
        return tuple(None if i in dead else gradient for i, gradient in enumerate(outgoing))

    return hook


def _needs_hook(reading: NodeReading) -> bool:
    correction = reading.correction
    if correction.rewrite is not None:
        return True
    return any(
        weight != 1.0 and flow is not Flow.CONSTANT
        for weight, flow in zip(correction.weights, reading.flows, strict=True)
    )


def _hook(reading: NodeReading) -> Callable[[_Gradients, _Gradients], _Gradients]:
    node, weights, rewrite = reading.node, reading.correction.weights, reading.correction.rewrite
    live = reading.flows.index(Flow.LIVE) if Flow.LIVE in reading.flows else 0

    def hook(incoming: _Gradients, outgoing: _Gradients) -> _Gradients:
        gradients = list(incoming)
        ordinary, received = gradients[live], outgoing[0]
        if rewrite is not None and ordinary is not None and received is not None:
            # Parameters of higher precision promote the product.
            gradients[live] = rewrite(node, ordinary, received).to(ordinary.dtype)
        return tuple(_weigh(g, w) for g, w in zip(gradients, weights, strict=True))

    return hook


def _weigh(gradient: Tensor | None, weight: float) -> Tensor | None:
    if gradient is None or weight == 0.0:
        return None
    return gradient if weight == 1.0 else gradient * weight
