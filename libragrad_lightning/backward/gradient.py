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

from libragrad_lightning.backward.arrivals import Arrivals, Keep
from libragrad_lightning.backward.biases import BiasSink, watch_biases
from libragrad_lightning.backward.graph import (
    AnnotatedGraph,
    AnnotatedNode,
    Flow,
    Gradients,
    annotate_graph,
    unknown_sentence,
)
from libragrad_lightning.backward.rule_sets import LIBRA, RuleSet

UnknownPolicy: TypeAlias = Literal["error", "warn", "ignore"]

Watch: TypeAlias = Callable[[AnnotatedGraph], Iterable[RemovableHandle]]
"""Registers hooks on a graph before its gradients are computed, to look and not to change."""


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
    keep: Keep | None = None,
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
        keep: What is returned of the gradient of each input, in its place; called as soon as the
            gradient is there, which is gone afterwards. The gradients by default.

    Returns:
        One gradient for each input, then one for each observed tensor, in its shape; zeros where
        the rules stop the gradient on every path.

    Raises:
        UnknownOperationError: If an operation without a role is met and `unknown` is ``"error"``.
        UnreachableInputError: If the outputs do not depend on one of the inputs.
    """
    outputs, inputs = _as_tuple(outputs), _as_tuple(inputs)
    graph = annotate_graph(outputs, inputs, rules)
    _apply_policy(graph, unknown)
    arrivals = Arrivals(graph, inputs, keep)
    handles: list[RemovableHandle] = []
    try:
        handles += _correct(graph)
        if on_bias is not None:
            for handle in watch_biases(graph, on_bias):
                handles.append(handle)  # one by one: reading the next bias may raise
        for watcher in watch:
            handles += watcher(graph)
        handles += arrivals.watched()
        gradients = torch.autograd.grad(
            outputs,
            [*arrivals.awaited, *observed],
            None if grad_outputs is None else _as_tuple(grad_outputs),
            retain_graph=retain_graph,
            allow_unused=True,
        )
    finally:
        for handle in handles:
            handle.remove()
    count = len(arrivals.awaited)
    of_observed = zip(observed, gradients[count:], strict=True)
    return (
        *arrivals.kept(gradients[:count]),
        *(torch.zeros_like(t) if gradient is None else gradient for t, gradient in of_observed),
    )


def _as_tuple(tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)


def _apply_policy(graph: AnnotatedGraph, unknown: UnknownPolicy) -> None:
    if unknown == "error":
        graph.check_known()
    elif unknown == "warn" and graph.unknown():
        warnings.warn(unknown_sentence(graph.unknown()), stacklevel=3)


def _correct(graph: AnnotatedGraph) -> list[RemovableHandle]:
    handles = [
        a.node.register_hook(a.correction.hook(a.node)) for a in graph.nodes if _needs_hook(a)
    ]
    for a in graph.nodes:
        if a.operation is not None and a.operation.needs_contiguous:
            handles.append(a.node.register_prehook(_contiguous))
        if a.correction.dead_outputs:
            handles.append(a.node.register_prehook(_without(a.correction.dead_outputs)))
    return handles


def _contiguous(outgoing: Gradients) -> Gradients:
    return tuple(None if gradient is None else gradient.contiguous() for gradient in outgoing)


def _without(dead: tuple[int, ...]) -> Callable[[Gradients], Gradients]:
    def hook(outgoing: Gradients) -> Gradients:
        return tuple(None if i in dead else gradient for i, gradient in enumerate(outgoing))

    return hook


def _needs_hook(annotated: AnnotatedNode) -> bool:
    correction = annotated.correction
    if correction.rewrite is not None:
        return True
    return any(
        weight != 1.0 and flow is not Flow.CONSTANT
        for weight, flow in zip(correction.weights, annotated.flows, strict=True)
    )
