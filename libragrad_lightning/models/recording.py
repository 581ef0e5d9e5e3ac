"""One recorded forward pass, and where images and tokens are in the values of its operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from libragrad_lightning.backward import PLAIN, GraphReading, bias_sites, read_graph
from libragrad_lightning.models.feature_view import Features, View, parts_of
from libragrad_lightning.models.image_axes import (
    ImageAxis,
    axes_of_batch,
    axes_of_pair,
    axis_of_one,
)
from libragrad_lightning.models.token_layouts import TokenLayout, token_layouts


@dataclass(frozen=True)
class Recording:
    """One recorded forward pass.

    Attributes:
        logits: `[B, C]`, with a graph that starts at z0.
        features: z0 and the inputs of all blocks but the first, in their own axes; z0 is a leaf.
        views: How to read each of them.
        middles: The features after the first residual connection of each block, where there is
            one.
        output: What the last block returned.
        image_axes: Where images are in the values of operations, by the number of the operation.
        token_layouts: Where tokens are in them, where their shape does not tell.
    """

    logits: Tensor
    features: tuple[Features, ...]
    views: tuple[View, ...]
    middles: tuple[Features | None, ...]
    output: Features
    image_axes: Mapping[int, ImageAxis | None] = field(default_factory=dict, repr=False)
    token_layouts: Mapping[int, TokenLayout] = field(default_factory=dict, repr=False)

    def reading(self) -> GraphReading:
        """Return the graph between the logits and z0, as it is without rules."""
        return read_graph([self.logits], parts_of(self.features[0]), PLAIN)


@dataclass(frozen=True)
class _KnownAxes:
    """Where images and tokens are in the values of operations.

    Attributes:
        images: By the number of the operation; None where it is unknown.
        tokens: Where the shape does not tell.
        steps: How often weights had been changed when this was measured.
    """

    images: Mapping[int, ImageAxis | None]
    tokens: Mapping[int, TokenLayout]
    steps: int

    @property
    def is_complete(self) -> bool:
        """Whether it is known of all operations."""
        return None not in self.images.values()


@dataclass
class AxesMemory:
    """Where images and tokens are in recordings of a model, measured once for every graph."""

    _known: dict[tuple[object, ...], _KnownAxes] = field(default_factory=dict)

    def completed(
        self,
        recording: Recording,
        images: Tensor,
        twice: Callable[[], Recording],
        steps: int,
    ) -> Recording:
        """Return a recording with where images and tokens are in it.

        Args:
            recording: The recording.
            images: Of what.
            twice: Records the first image twice.
            steps: How often the weights have been changed.
        """
        sites = _sites(recording.reading())
        key = (images.shape[1:], len(images) == 1, sites)
        known = self._known.get(key)
        if known is None or not (known.is_complete or known.steps == steps):
            known = self._known[key] = _measured(recording, twice, sites, steps)
        return replace(recording, image_axes=known.images, token_layouts=known.tokens)


def _measured(
    recording: Recording,
    twice: Callable[[], Recording],
    sites: tuple[tuple[int, str], ...],
    steps: int,
) -> _KnownAxes:
    """Return where images and tokens are, from an image twice if its graph is the same.

    What is saved for that is hidden from a caller that weighs what its images need.
    """
    measured = recording
    axes: dict[int, ImageAxis | None]
    if len(recording.logits) == 1:
        reading = recording.reading()
        axes = {number: axis_of_one(name, reading.shape_at(number)) for number, name in sites}
    else:
        with saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
            pair = twice()
        if _sites(pair.reading()) == sites:
            measured, axes = pair, axes_of_pair((pair.logits, pair.features[0]))
        else:
            axes = axes_of_batch((recording.logits, recording.features[0]))
    layouts = token_layouts(measured.logits, measured.features, measured.views, axes)
    return _KnownAxes(axes, layouts, steps)


def _sites(reading: GraphReading) -> tuple[tuple[int, str], ...]:
    return tuple((site.number, site.operation) for site in bias_sites(reading))
