"""The coverage report: which operations a model is made of, and which rule each of them gets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from torch import Tensor, nn

from libragrad_lightning.backward import LIBRA, Flow, RuleSet
from libragrad_lightning.backward.graph import AnnotatedGraph, AnnotatedNode, annotate_graph
from libragrad_lightning.diagnosis.tracing import ModuleCall, traced_calls
from libragrad_lightning.models import TokenModel, explanation_state, logits_of, parts_of
from libragrad_lightning.tables import TableRows


@dataclass(frozen=True)
class OperationUse:
    """How a model uses one operation on the explained path.

    Attributes:
        operation: The name of the graph node.
        role: Its role in the theory, or None if it has none.
        count: How often it occurs where the explained tensor arrives alive and a gradient returns.
        stopped: How often it occurs where no gradient meets it.
        places: Paths of the modules that run it, at most a few.
    """

    operation: str
    role: str | None
    count: int
    stopped: int
    places: tuple[str, ...]

    @property
    def advice(self) -> str:
        """What to do about it; empty if it has a role or no gradient meets it."""
        if self.role is not None or not self.count:
            return ""
        return (
            f"give {self.operation} a role: rules.vocabulary.extended("
            f"{{'{self.operation}': operation}}), such as Linear() or Activation(gate)"
        )


_RULES = {
    "block": "input of a module around a residual connection",
    "stream": "residual stream, before a branch that mixes tokens",
    "layer": "input of a layer with weights",
    "pass": "inputs of one module in several passes over the images",
    "named": "named in `blocks`",
}
_LOCATED_BY = {
    "pixels": "the pixels that move its tokens",
    "graph": "the graph, from the level before",
    "number": "the number of its tokens alone, which is that of the level before",
}


@dataclass(frozen=True)
class LevelUse:
    """A level at which attributions are taken, and what told that it is one.

    Attributes:
        place: Path of the module that receives its features.
        passes: In how many passes over the images.
        found: By which rule it was found.
        layout: The axes of its features.
        grid: Rows and columns of its patches or cells.
        prefix: How many of its tokens lie nowhere in the image.
        located: What told where its tokens lie.
    """

    place: str
    passes: int
    found: str
    layout: str
    grid: tuple[int, int]
    prefix: int
    located: str


@dataclass(frozen=True)
class CoverageReport:
    """All operations between the logits and the explained tensor.

    Attributes:
        rules: The name of the rule set.
        uses: One entry per operation, unknown ones first, then by role.
        levels: Where attributions are taken; empty for the pixels.
        left_out: How many blocks were left out, as their tokens lie in no grid of the image.
    """

    rules: str
    uses: tuple[OperationUse, ...]
    levels: tuple[LevelUse, ...] = ()
    left_out: int = 0

    @property
    def unknown(self) -> tuple[OperationUse, ...]:
        """The operations without a role that the explained tensor flows through."""
        return tuple(use for use in self.uses if use.role is None and use.count)

    def table(self) -> Table:
        """Return the report as a rich table for the terminal."""
        table = Table(title=f"Coverage under {self.rules}", title_justify="left")
        for column in ("operation", "role", "count", "stopped", "where"):
            table.add_column(column, justify="right" if column in ("count", "stopped") else "left")
        for use in self.uses:
            role = use.role or ("[bold red]unknown[/]" if use.count else "unknown (stopped)")
            places = ", ".join(use.places)
            table.add_row(use.operation, role, str(use.count), str(use.stopped), places)
        return table

    def markdown(self) -> str:
        """Return the report as Markdown tables, for TensorBoard's text panel."""
        columns = ("operation", "role", "count", "stopped", "where")
        rows = [
            (u.operation, u.role or "**unknown**", u.count, u.stopped, ", ".join(u.places))
            for u in self.uses
        ]
        parts = [TableRows(columns, tuple(rows)).markdown()]
        parts.append("\n".join(f"- {use.advice}" for use in self.unknown))
        if self.levels:
            parts.append(self._level_table().markdown())
        if self.left_out:
            parts.append(f"{self.left_out} blocks work on tokens that lie nowhere.")
        return "\n\n".join(filter(None, parts))

    def _level_table(self) -> TableRows:
        columns = ("level", "enters", "found as", "axes", "grid", "elsewhere", "located by")
        rows = [
            (
                i,
                f"{level.place} ({level.passes} passes)" if level.passes > 1 else level.place,
                level.found,
                level.layout,
                f"{level.grid[0]} x {level.grid[1]}",
                level.prefix,
                level.located,
            )
            for i, level in enumerate(self.levels)
        ]
        return TableRows(columns, tuple(rows))


def coverage(
    model: nn.Module,
    images: Tensor,
    *,
    rules: RuleSet = LIBRA,
    forward: Callable[[Tensor], Any] | None = None,
    tokens: TokenModel | None = None,
    places: int = 3,
) -> CoverageReport:
    """Report every operation between the logits of a model and its pixels or tokens.

    Args:
        model: The model; it is put into evaluation mode for the call and back afterwards.
        images: `[B, C, H, W]`; one image is enough.
        rules: The rule set that decides roles, and where gradients stop.
        forward: Images to logits; the model itself by default.
        tokens: Where the tokens of the model are, to report what lies between the logits and z0.
        places: How many module paths to name per operation.
    """
    with explanation_state(model):
        with traced_calls(model, isolate=False) as roots:
            if tokens is None:
                inputs: tuple[Tensor, ...] = (images.detach().clone().requires_grad_(),)
                logits = logits_of((forward or model)(inputs[0]))
            else:
                recording = tokens.record_alone(images)
                inputs, logits = parts_of(recording.features[0]), recording.logits
        graph = annotate_graph([logits], inputs, rules)
        levels = () if tokens is None else _levels(model, tokens, images)
    left_out = 0 if tokens is None else tokens.left_out
    return CoverageReport(rules.name, _uses(graph, roots, places), levels, left_out)


def _levels(model: nn.Module, tokens: TokenModel, images: Tensor) -> tuple[LevelUse, ...]:
    paths = {module: path for path, module in model.named_modules()}
    located = tokens.located_by or ("pixels",) * len(tokens.levels)
    triples = zip(tokens.levels, tokens.views(images), located, strict=True)
    return tuple(
        LevelUse(
            paths.get(level.points[0].module) or type(level.points[0].module).__name__,
            len(level.points),
            _RULES[level.rule],
            view.passes[0].axes.value,
            view.grid,
            view.prefix,
            _LOCATED_BY[by],
        )
        for level, view, by in triples
    )


def _uses(
    graph: AnnotatedGraph, roots: Sequence[ModuleCall], places: int
) -> tuple[OperationUse, ...]:
    groups: dict[str, list[AnnotatedNode]] = defaultdict(list)
    for annotated in graph.nodes:
        groups[annotated.node.name()].append(annotated)
    uses = [_use(name, group, graph, roots, places) for name, group in groups.items()]
    return tuple(sorted(uses, key=lambda use: (use.role or "", use.operation)))


def _use(
    name: str,
    group: Sequence[AnnotatedNode],
    graph: AnnotatedGraph,
    roots: Sequence[ModuleCall],
    places: int,
) -> OperationUse:
    live = [r for r in group if Flow.LIVE in r.flows and graph.receives(r)]
    operation = group[0].operation
    paths = {_path(r, roots): None for r in live or group}
    shown = list(paths)[:places] + ([f"... {len(paths)} in all"] if len(paths) > places else [])
    role = None if operation is None else operation.role.value
    return OperationUse(name, role, len(live), len(group) - len(live), tuple(shown))


def _path(annotated: AnnotatedNode, roots: Sequence[ModuleCall]) -> str:
    position = annotated.node._sequence_nr()
    for root in roots:
        if root.start <= position < root.end:
            return root.innermost(position).path or "(model)"
    return "(outside)"
