"""The leak finder: where a model's attributions stop adding up to its output, and by how much.

A FullGrad-complete module conserves: for its inputs x and output y,
<dF/dy, y> = <dF/dx, x> + sum of b * dF/dy_b over the biases inside. What is missing leaks there. A
module's own leak is its leak less that of the modules that it calls, so that the module whose own
code is at fault stands out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from torch import Tensor, nn

from libragrad_lightning.backward import LIBRA, ConstantObserver, Flow, RuleSet, grad
from libragrad_lightning.backward.biases import BiasSite
from libragrad_lightning.backward.graph import AnnotatedGraph, annotate_graph
from libragrad_lightning.diagnosis.tracing import ModuleCall, traced_calls
from libragrad_lightning.models import explanation_state, logits_of


@dataclass(frozen=True)
class Leak:
    """The incompleteness of one call of a module.

    Attributes:
        path: The path of the module, ``(model)`` for the model itself.
        kind: The name of its class.
        leaked: What the call as a whole loses (positive) or adds (negative), in units of the logit.
        own: The part of it that is not lost in the modules that it calls.
        suspects: Operations of the module's own code that can be at fault.
    """

    path: str
    kind: str
    leaked: float
    own: float
    suspects: tuple[str, ...]


@dataclass(frozen=True)
class IncompletenessReport:
    """Where completeness is lost.

    Attributes:
        rules: The name of the rule set.
        logit: The explained logit, summed over the images.
        attributed: The FullGrad sum at the pixels.
        leaks: The calls, largest own leak first.
    """

    rules: str
    logit: float
    attributed: float
    leaks: tuple[Leak, ...]

    @property
    def relative_error(self) -> float:
        """``|FullGrad sum - logit| / |logit|``."""
        return abs(self.attributed - self.logit) / abs(self.logit)

    def table(self, rows: int = 10) -> Table:
        """Return the largest leaks as a rich table for the terminal."""
        table = Table(
            title=f"Completeness under {self.rules}: FullGrad sum {self.attributed:.6g}, "
            f"logit {self.logit:.6g}, relative error {self.relative_error:.1e}",
            title_justify="left",
        )
        for column in ("module", "class", "own leak", "suspects"):
            table.add_column(column, justify="right" if column == "own leak" else "left")
        for leak in self.leaks[:rows]:
            table.add_row(leak.path, leak.kind, f"{leak.own:.3g}", ", ".join(leak.suspects))
        return table


def explain_incompleteness(
    model: nn.Module,
    images: Tensor,
    target: int | None = None,
    *,
    rules: RuleSet = LIBRA,
    forward: Callable[[Tensor], Any] | None = None,
) -> IncompletenessReport:
    """Find the modules where FullGrad completeness of a logit with respect to the pixels is lost.

    Use float64 (`model.double()`) to tell a leak from rounding.

    Args:
        model: The model; it is put into evaluation mode for the call and back afterwards.
        images: `[B, C, H, W]`; one image is enough.
        target: The logit to explain, by its index; the largest one of each image by default.
        rules: The rule set.
        forward: Images to logits; the model itself by default.

    Raises:
        ValueError: If the model has no such logit.
    """
    with explanation_state(model):
        explained = images.detach().clone().requires_grad_()
        with ConstantObserver(), traced_calls(model, isolate=True) as roots:
            logits = logits_of((forward or model)(explained))
        score = _explained_logits(logits, target).sum()
        graph = annotate_graph([score], [explained], rules)
        relevance = _Relevance(score, explained, roots, rules)
    leaks = [
        _leak(call, relevance, graph) for root in roots for call in root.all_calls() if call.inputs
    ]
    leaks.sort(key=lambda leak: -abs(leak.own))
    return IncompletenessReport(
        rules.name, float(score.detach()), relevance.attributed, tuple(leaks)
    )


def _explained_logits(logits: Tensor, target: int | None) -> Tensor:
    if target is None:
        return logits.gather(1, logits.argmax(1)[:, None])[:, 0]
    count = logits.shape[1]
    if not 0 <= target < count:
        raise ValueError(
            f"`target` must be the index of one of the model's {count} logits (0 to {count - 1}), "
            f"but is {target}."
        )
    return logits[:, target]


class _Relevance:
    """<gradient, value> of every tensor that entered or left a call, and of every bias."""

    def __init__(
        self, score: Tensor, explained: Tensor, roots: Sequence[ModuleCall], rules: RuleSet
    ) -> None:
        self.biases: list[tuple[int, float]] = []
        calls = [call for root in roots for call in root.all_calls()]
        observed = [t for call in calls for t in (*call.inputs, *call.outputs)]
        gradients = grad(
            score,
            explained,
            rules=rules,
            unknown="ignore",
            on_bias=self._add_bias,
            observed=observed,
        )
        self._of = {
            id(tensor): _inner_product(gradient, tensor)
            for tensor, gradient in zip(observed, gradients[1:], strict=True)
        }
        at_pixels = _inner_product(gradients[0], explained)
        self.attributed = at_pixels + sum(value for _, value in self.biases)

    def _add_bias(self, site: BiasSite, contribution: Tensor) -> None:
        self.biases.append((site.sequence, float(contribution.sum())))

    def leaked(self, call: ModuleCall) -> float:
        incoming = sum(self._of[id(t)] for t in call.inputs)
        outgoing = sum(self._of[id(t)] for t in call.outputs)
        inside = sum(value for position, value in self.biases if call.start <= position < call.end)
        return outgoing - incoming - inside


def _inner_product(gradient: Tensor, value: Tensor) -> float:
    return float((gradient * value.detach()).sum())


def _leak(call: ModuleCall, relevance: _Relevance, graph: AnnotatedGraph) -> Leak:
    leaked = relevance.leaked(call)
    own = leaked - sum(relevance.leaked(child) for child in call.children if child.inputs)
    return Leak(call.path or "(model)", call.kind, leaked, own, _suspects(call, graph))


def _suspects(call: ModuleCall, graph: AnnotatedGraph) -> tuple[str, ...]:
    """Name unknown operations and gates, whose value is lost unless it is a factor or addend."""
    found: Counter[str] = Counter()
    for r in graph.nodes:
        position = r.node._sequence_nr()
        inside = call.start <= position < call.end and call.innermost(position) is call
        if not inside or Flow.LIVE not in r.flows or not graph.receives(r):
            continue
        if r.operation is None:
            found[f"{r.node.name()} (unknown)"] += 1
        elif r.flow is Flow.DEAD:
            found[f"{r.node.name()} (stopped: {r.operation.role.value})"] += 1
    return tuple(f"{name} x{count}" if count > 1 else name for name, count in found.items())
