"""Where images and tokens are in operations, measured once for blocks that are built alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.backward import PLAIN, Node
from libragrad_lightning.backward.biases import BiasSite, bias_sites
from libragrad_lightning.backward.graph import AnnotatedNode, annotate_graph
from libragrad_lightning.models.feature_view import Features, FeatureView, View, parts_of
from libragrad_lightning.models.image_axes import ImageAxis, axes_of_pair
from libragrad_lightning.models.layout_questions import BlockGraph, layouts_of_sites
from libragrad_lightning.models.noise import noise_like
from libragrad_lightning.models.token_layouts import TokenLayout

_SCALARS = (bool, int, float, str, type(None))

_Form: TypeAlias = tuple[object, ...]
"""What makes two blocks alike: their operations in order, with shapes, axes and numbers."""


@dataclass(frozen=True)
class SiteAxes:
    """Where images and tokens are in the values of an operation.

    Attributes:
        images: None where it is unknown.
        tokens: None where the shape tells.
    """

    images: ImageAxis | None
    tokens: TokenLayout | None


def axes_by_block(
    logits: Tensor,
    features: Sequence[Features],
    views: Sequence[View],
    ends: Features | None,
    known: Sequence[ImageAxis | None] | None = None,
) -> list[SiteAxes]:
    """Find where images and tokens are in a recorded forward pass.

    Args:
        logits: `[B, C]`; of an image twice unless it is known where images are.
        features: The features of all levels.
        views: How to read them.
        ends: What the last block returns, if it was recorded.
        known: Where images are, for every site of biases.

    Returns:
        For every site of biases, in their order.
    """
    graph = _Graph(logits, features, views, ends)
    if known is None and not graph.is_divided:
        whole = axes_of_pair(logits, features[0])
        known = [whole.get(site.number) for site in graph.sites]
    found: dict[int, list[SiteAxes]] = {}
    by_form: dict[_Form, list[SiteAxes]] = {}
    for block in sorted(set(graph.block_of)):
        form = graph.form_of(block)
        if form not in by_form or known is not None:
            images = graph.images_of(block, known)
            pairs = zip(graph.nodes_of(block), images, strict=True)
            layouts = layouts_of_sites(graph.block(block), list(pairs))
            by_form[form] = [SiteAxes(*pair) for pair in zip(images, layouts, strict=True)]
        found[block] = list(by_form[form])
    return [found[block].pop(0) for block in graph.block_of]


class _Graph:
    """The blocks of a recorded forward pass, and what lies behind the last of them."""

    def __init__(
        self,
        logits: Tensor,
        features: Sequence[Features],
        views: Sequence[View],
        ends: Features | None,
    ) -> None:
        self._logits, self._passes = logits, len(views[0].passes)
        self._parts = [part for level in features for part in parts_of(level)]
        self._views = [view for level in views for view in level.passes]
        self.last = len(self._parts) - self._passes
        tail, last = [] if ends is None else list(parts_of(ends)), self._parts[self.last :]
        self._ends = tail if [e.shape for e in tail] == [p.shape for p in last] else []
        self._graph = annotate_graph([logits], [*self._parts, *self._ends], PLAIN)
        self.sites = bias_sites(self._graph)
        self.block_of = [max(site.depends_on) for site in self.sites]
        self._forms = _forms(self._graph.nodes)

    @property
    def is_divided(self) -> bool:
        """Whether the sites of every block are those between its input and its output."""
        alike = {self.form_of(block): block for block in set(self.block_of)}
        return all(len(self._inner(b)) == len(self.sites_of(b)) for b in alike.values())

    def form_of(self, block: int) -> _Form:
        """Return what blocks share that are built alike; one behind which scores come is alone."""
        return self._forms[block], block >= self.last

    def nodes_of(self, block: int) -> list[Node | None]:
        """Return the operations at the sites of a block, None for those of picked rows."""
        nodes, sites = self._graph.nodes, self.sites_of(block)
        return [None if site.is_routed else nodes[site.number].node for site in sites]

    def sites_of(self, block: int) -> list[BiasSite]:
        pairs = zip(self.sites, self.block_of, strict=True)
        return [site for site, own in pairs if own == block]

    def images_of(
        self, block: int, known: Sequence[ImageAxis | None] | None
    ) -> list[ImageAxis | None]:
        """Return where images are in the sites of a block."""
        if known is not None:
            pairs = zip(known, self.block_of, strict=True)
            return [axis for axis, own in pairs if own == block]
        before, after = self._between(block)
        gradient = None if after is None else _doubled(after, self._view(block + self._passes))
        axes = axes_of_pair(self._logits if after is None else after, before, gradient)
        return [axes.get(site.number) for site in self._inner(block)]

    def block(self, block: int) -> BlockGraph:
        """Return the input and the output of a block."""
        before, after = self._between(block)
        views = [self._view(block)]
        if after is not None:
            views.append(self._view(block + self._passes))
        unknown = block >= self.last and not self._ends
        return BlockGraph(len(self._logits), views, before, after, unknown)

    def _between(self, block: int) -> tuple[Tensor, Tensor | None]:
        tensors = [*self._parts, *self._ends]
        behind = block + self._passes
        return tensors[block], tensors[behind] if behind < len(tensors) else None

    def _view(self, block: int) -> FeatureView:
        return self._views[min(block, self.last + block % self._passes)]

    def _inner(self, block: int) -> list[BiasSite]:
        before, after = self._between(block)
        return bias_sites(
            annotate_graph([self._logits if after is None else after], [before], PLAIN)
        )


def _doubled(after: Tensor, view: FeatureView) -> Tensor:
    """Return a gradient of features, that of the second image twice that of the first."""
    values = torch.zeros_like(after)
    tokens = view.axes.sequence(values)
    noise = noise_like(tokens[0])
    tokens[0], tokens[1] = noise, 2 * noise
    return values


def _forms(nodes: Sequence[AnnotatedNode]) -> dict[int, _Form]:
    """Return the form of every block."""
    operations: defaultdict[int, list[object]] = defaultdict(list)
    attributes: dict[str, list[str]] = {}
    for annotated in nodes:
        block = max(annotated.depends_on)
        operations[block].append(_form(annotated.node, attributes))
    return {block: tuple(form) for block, form in operations.items()}


def _form(node: Node, attributes: dict[str, list[str]]) -> tuple[object, ...]:
    name = node.name()
    if name not in attributes:
        saved = [a for a in dir(node) if a.startswith("_saved_")]
        attributes[name] = [a for a in saved if _is_plain(getattr(node, a))]
    values = tuple(_frozen(getattr(node, a)) for a in attributes[name])
    return name, tuple(node._input_metadata[0].shape), values


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, _SCALARS)


def _frozen(value: Any) -> object:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
