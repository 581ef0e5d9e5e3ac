"""One recorded forward pass, and where images and tokens are in the values of its operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from libragrad_lightning.backward import PLAIN
from libragrad_lightning.backward.biases import BiasSite, bias_sites
from libragrad_lightning.backward.graph import AnnotatedGraph, annotate_graph
from libragrad_lightning.models.block_axes import SiteAxes, axes_by_block
from libragrad_lightning.models.feature_view import Features, View, parts_of
from libragrad_lightning.models.image_axes import ImageAxis, axes_of_batch, axis_of_one
from libragrad_lightning.models.token_layouts import TokenLayout


@dataclass(frozen=True)
class Recording:
    """One recorded forward pass.

    Attributes:
        logits: `[B, C]`, with a graph that starts at z0.
        features: z0 and the inputs of all blocks but the first, in their own axes; z0 is a leaf.
        views: How to read each of them.
        mid_residuals: The features after the first residual connection of each block, where there
            is one.
        output: What the last block returned.
        image_axes: Where images are in the values of operations, by the number of the operation.
        token_layouts: Where tokens are in them, where their shape does not tell.
    """

    logits: Tensor
    features: tuple[Features, ...]
    views: tuple[View, ...]
    mid_residuals: tuple[Features | None, ...]
    output: Features
    image_axes: Mapping[int, ImageAxis | None] = field(default_factory=dict, repr=False)
    token_layouts: Mapping[int, TokenLayout] = field(default_factory=dict, repr=False)

    @property
    def mixes_images(self) -> bool:
        """Whether some values seem to depend on several images of the batch."""
        axes = self.image_axes.values()
        return len(self.logits) > 1 and any(a is not None and a.is_mixed for a in axes)

    def graph(self) -> AnnotatedGraph:
        """Return the graph between the logits and z0, as it is without rules."""
        return annotate_graph([self.logits], parts_of(self.features[0]), PLAIN)

    def sites(self) -> list[BiasSite]:
        """Return the sites of biases in this graph."""
        return bias_sites(self.graph())


def bytes_saved(record: Callable[[], object], modules: Iterable[nn.Module]) -> int:
    """Return what autograd saves while something is recorded, without weights of some modules."""
    weights = {p.untyped_storage().data_ptr() for m in modules for p in m.parameters()}
    saved: dict[int, int] = {}

    def weigh(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(weigh, lambda tensor: tensor):
        record()
    return sum(size for pointer, size in saved.items() if pointer not in weights)


@dataclass(frozen=True)
class _KnownAxes:
    """Where images and tokens are in the values of operations, in the order of their sites.

    Attributes:
        sites: One for every site.
        steps: How often weights had been changed when this was measured.
    """

    sites: tuple[SiteAxes, ...]
    steps: int

    @property
    def is_complete(self) -> bool:
        """Whether it is known of all operations."""
        return all(site.images is not None for site in self.sites)


@dataclass
class AxesMemory:
    """Where images and tokens are in recordings of a model, measured once for every graph."""

    _known: dict[tuple[object, ...], _KnownAxes] = field(default_factory=dict)

    def learn(self, pair: Recording, size: torch.Size, steps: int) -> None:
        """Measure in a recording of an image twice; arguments as those of `completed`."""
        axes = axes_by_block(pair.logits, pair.features, pair.views, pair.output)
        self._known[(size, False, _operations(pair.sites()))] = _KnownAxes(tuple(axes), steps)

    def completed(
        self, recording: Recording, size: torch.Size, twice: Callable[[], Recording], steps: int
    ) -> Recording:
        """Return a recording with where images and tokens are in it.

        Args:
            recording: The recording.
            size: Channels, height and width of the images.
            twice: Records the first image twice.
            steps: How often the weights have been changed.
        """
        sites = recording.sites()
        key = (size, len(recording.logits) == 1, _operations(sites))
        known = self._known.get(key)
        if known is None or not (known.is_complete or known.steps == steps):
            pair = self._of_pairs(size, len(sites)) if len(recording.logits) == 1 else None
            known = _as_in(pair, recording, sites) or _measured(recording, twice, sites, steps)
            self._known[key] = known
        numbered = dict(zip((site.number for site in sites), known.sites, strict=True))
        return replace(
            recording,
            image_axes={number: site.images for number, site in numbered.items()},
            token_layouts={n: site.tokens for n, site in numbered.items() if site.tokens},
        )

    def _of_pairs(self, size: torch.Size, count: int) -> _KnownAxes | None:
        """Return what is known of recordings of several images with as many sites."""
        known = (k for key, k in self._known.items() if key[:2] == (size, False))
        return next((k for k in known if len(k.sites) == count), None)


def _as_in(
    pair: _KnownAxes | None, recording: Recording, sites: Sequence[BiasSite]
) -> _KnownAxes | None:
    """Return for an image alone what is known of several, so that it has the same map."""
    if pair is None:
        return None
    graph, found = recording.graph(), []
    for site, known in zip(sites, pair.sites, strict=True):
        shape = graph.shape_at(site.number)
        axis = known.images
        if axis is None or not axis.fits_one(shape):
            axis = axis_of_one(site.operation, shape)
        found.append(SiteAxes(replace(axis, operation=site.operation), known.tokens))
    return replace(pair, sites=tuple(found))


def _measured(
    recording: Recording,
    twice: Callable[[], Recording],
    sites: Sequence[BiasSite],
    steps: int,
) -> _KnownAxes:
    """Return where images and tokens are, from an image twice if its graph is the same.

    What is saved for that is hidden from a caller that weighs what its images need.
    """
    measured = recording
    images: list[ImageAxis | None] | None = None
    if len(recording.logits) == 1:
        graph = recording.graph()
        images = [axis_of_one(s.operation, graph.shape_at(s.number)) for s in sites]
    else:
        with saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
            pair = twice()
        if _operations(pair.sites()) == _operations(sites):
            measured = pair
        else:
            found = axes_of_batch(recording.logits, recording.features[0])
            images = [found.get(site.number) for site in sites]
    parts = (measured.logits, measured.features, measured.views, measured.output)
    return _KnownAxes(tuple(axes_by_block(*parts, images)), steps)


def _operations(sites: Sequence[BiasSite]) -> tuple[str, ...]:
    return tuple(site.operation for site in sites)
