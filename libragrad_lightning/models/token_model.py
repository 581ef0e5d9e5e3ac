"""A model as tokens, levels and logits.

The explained tensor is z0, the tokens after patch and position embedding (Mehri et al. 2025, sec.
4), or the feature map that enters the first block. Hooks stand only while a pass of ours runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from libragrad_lightning.backward import ConstantObserver
from libragrad_lightning.models.dropping import accepts_fewer, ignores_order
from libragrad_lightning.models.errors import UnreadableModelError
from libragrad_lightning.models.feature_view import (
    Features,
    FeatureView,
    View,
    joined_features,
    parts_of,
)
from libragrad_lightning.models.geometry import Located, located_levels, recorded_levels
from libragrad_lightning.models.hooks import tables_read_at
from libragrad_lightning.models.levels import Level, Point, seen_at, seen_until_the_last
from libragrad_lightning.models.logits import logits_of
from libragrad_lightning.models.reading_areas import measured_placement
from libragrad_lightning.models.recording import AxesMemory, Recording, bytes_saved
from libragrad_lightning.models.refusals import unless_refused
from libragrad_lightning.placement import Placement


@dataclass(frozen=True)
class TokenModel:
    """A model that maps images to logits, and the levels of its features.

    Attributes:
        forward: Images `[B, C, H, W]` to logits `[B, classes]`, or to anything that holds them.
        levels: Where z0 enters, then the inputs of all blocks but the first.
        blocks: The blocks.
        ends: What the last block returns, in each pass; the output of its module by default.
        readout: The tokens of the last block's output on which the logits depend.
        located_by: What told where the tokens of each level lie, as `Located.by`.
        left_out: How many blocks were left out, as their tokens lie in no grid of the image.
    """

    forward: Callable[[Tensor], Any]
    levels: tuple[Level, ...]
    blocks: tuple[nn.Module, ...]
    ends: tuple[Point, ...] = ()
    readout: tuple[int, ...] = ()
    located_by: tuple[str, ...] = ()
    left_out: int = 0
    _views: dict[torch.Size, tuple[View, ...]] = field(default_factory=dict, repr=False)
    _placements: dict[torch.Size, Placement] = field(default_factory=dict, repr=False)
    _drops: dict[torch.Size, bool] = field(default_factory=dict, repr=False)
    _shared_stem: dict[torch.Size, bool] = field(default_factory=dict, repr=False)
    _bytes: dict[torch.Size, int] = field(default_factory=dict, repr=False)
    _axes: AxesMemory = field(default_factory=AxesMemory, repr=False)

    @property
    def is_located(self) -> bool:
        """Whether pixels told where the tokens of the first level lie."""
        return self.located_by[:1] != ("number",)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits `[B, C]` of images `[B, C, H, W]`."""
        return logits_of(self.forward(images))

    def views(self, images: Tensor) -> tuple[View, ...]:
        """Return how to read the features of all levels; measured once per image size.

        Raises:
            UnreadableModelError: If the tokens of a level lie in no grid of the images.
        """
        size = images.shape[1:]
        if size not in self._views:
            found = self.located(images[:1])
            views = tuple(level.view for level in found if level.view is not None)
            if len(views) < len(found):
                raise UnreadableModelError(
                    f"It cannot be told where the features of {len(found) - len(views)} blocks lie "
                    f"in images of {size[1]} x {size[2]}, although it can for other sizes; read "
                    "the model with images of this size, or name `blocks`."
                )
            self._views[size] = views
        return self._views[size]

    def located(self, image: Tensor) -> list[Located]:
        """Measure where the tokens of all levels lie in an image."""
        recorded = recorded_levels(self.forward, self.levels, image.detach())
        return located_levels(self.forward, self.levels, recorded, image.detach(), self.readout)

    def set_views(self, images: Tensor, views: tuple[View, ...]) -> None:
        """Keep how to read features of images of a size."""
        self._views[images.shape[1:]] = views

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """Return z0 `[B, T, D]` without a graph; the forward pass ends there."""
        points = self.levels[0].points
        seen = seen_until_the_last(self.forward, points, images)
        entered = {number: seen[point] for number, point in enumerate(points) if point in seen}
        return self.views(images)[0].tokens(self._all(entered))

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Return the rows and columns of the patches or cells of z0."""
        return self.views(images)[0].grid

    def placement(self, images: Tensor) -> Placement:
        """Return where the patches or cells of z0 lie; measured once per image size."""
        if images.shape[1:] not in self._placements:
            first = (self.levels[0], self.views(images)[0])
            found = measured_placement(self.forward, *first, images[:1])
            self._placements[images.shape[1:]] = found
        return self._placements[images.shape[1:]]

    def prefix(self, images: Tensor) -> int:
        """Return how many tokens of z0 lie nowhere in the images."""
        return self.views(images)[0].prefix

    def logits_from_tokens(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits of a forward pass that goes on from other tokens.

        Args:
            images: `[B, C, H, W]`; the forward pass starts with them as usual.
            tokens: `[B', T, D]` in place of z0.
        """
        return self._logits_from(images, self.views(images)[0].features(tokens))

    def logits_from_patches(
        self, images: Tensor, tokens: Tensor, patches: Tensor, read_at: Tensor | None = None
    ) -> Tensor:
        """Return the logits of a forward pass that goes on with some of the tokens.

        All tokens that lie nowhere go on, in the places that they have among the others. Position
        tables that the blocks receive are read at the patches that go on.

        Args:
            images: `[B, C, H, W]`; the forward pass starts with them as usual.
            tokens: `[B', T, D]` in place of z0.
            patches: Which patches go on, `[B', K]`, ascending.
            read_at: The patches at which tables are read, if tokens of others stand there.
        """
        view = self.views(images)[0]
        assert isinstance(view, FeatureView)
        first = torch.arange(view.prefix, device=patches.device).expand(len(patches), -1)
        index = torch.cat([first, patches + view.prefix], dim=1)
        table = view.patches_in_model(patches, patches if read_at is None else read_at)
        count = view.grid[0] * view.grid[1]
        with ExitStack() as stack:
            for module in self.blocks:
                stack.enter_context(tables_read_at(module, count, table))
            return self._logits_from(images, view.selected(tokens, index))

    def placeholder_images(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the images with which forward passes from other tokens may start.

        What is made of them before z0 is thrown away there: one image is enough, unless the model
        remembers the size of the batch. Looked at once per image size.

        Args:
            images: `[B, C, H, W]`.
            rows: The numbers of the images whose tokens go on, `[R]`.
        """
        size = images.shape[1:]
        if size not in self._shared_stem:
            tokens = self.tokens(images[:1]).expand(2, -1, -1)
            expected = self.logits_from_tokens(images[:1].expand(2, -1, -1, -1), tokens)
            found = unless_refused(partial(self.logits_from_tokens, images[:1], tokens))
            self._shared_stem[size] = found is not None and torch.equal(found, expected)
        return images[:1] if self._shared_stem[size] else images[rows]

    def record(self, images: Tensor) -> Recording:
        """Run a forward pass and record z0 and the block inputs.

        Needs gradients enabled. The graph starts at z0. Where images are in the operations is
        looked at once per image size and state of the weights, in a forward pass of two.
        """
        recording = self.record_alone(images)
        twice = partial(self.record_alone, images[:1].expand(2, -1, -1, -1))
        # Values without any effect tell nothing, and may have one after a step of training.
        return self._axes.completed(recording, images.shape[1:], twice, self._steps())

    def learn(self, pair: Recording, size: torch.Size) -> None:
        """Keep where images and tokens are in a recording of an image twice.

        Args:
            pair: The recording.
            size: Channels, height and width of the image.
        """
        self._axes.learn(pair, size, self._steps())

    def _steps(self) -> int:
        """Return how often the weights have been changed."""
        weights = (p for block in self.blocks for p in block.parameters() if not p.is_inference())
        return sum(p._version for p in weights)

    def record_alone(self, images: Tensor) -> Recording:
        """Run and record a forward pass as `record` does, without looking where images are."""
        return self._record(images, None)

    def bytes_recorded(self, images: Tensor) -> int:
        """Return what autograd saves for one image, in bytes; measured once per image size."""
        size = images.shape[1:]
        if size not in self._bytes:
            self._bytes[size] = bytes_saved(partial(self.record_alone, images[:1]), self.blocks)
        return self._bytes[size]

    def record_from_tokens(self, images: Tensor, tokens: Tensor) -> Recording:
        """Record a forward pass that goes on from other tokens `[B, T, D]` in place of z0."""
        return self._record(images, self.views(images)[0].features(tokens))

    def _logits_from(self, images: Tensor, z0: Features) -> Tensor:
        parts = parts_of(z0)
        with ExitStack() as stack:
            for number, point in enumerate(self.levels[0].points):
                stack.enter_context(seen_at(point, partial(self._replaced, parts[number])))
            return self.logits(images)

    def _replaced(self, by: Tensor, entering: Tensor) -> Tensor | None:
        """Return what stands for the features that enter, or write it over them."""
        if self.levels[0].is_whole:
            return by
        with torch.no_grad():
            entering.copy_(by)
        return None

    def _record(self, images: Tensor, z0: Features | None) -> Recording:
        views = self.views(images)
        given = None if z0 is None else parts_of(z0)
        seen: list[dict[int, Tensor]] = [{} for _ in self.levels]
        mid_residuals: list[dict[int, Tensor]] = [{} for _ in self.levels]
        outputs: dict[int, Tensor] = {}

        def start_here(number: int, entering: Tensor) -> Tensor | None:
            if not self.levels[0].is_whole:
                seen[0][number] = entering
                return None if given is None else self._replaced(given[number], entering)
            start = entering if given is None else given[number]
            seen[0][number] = start.detach().requires_grad_()
            # A leaf could not be overwritten by the module that it enters.
            return seen[0][number].clone()

        if not self.levels[0].is_whole:  # What enters must have a graph to be seen in it.
            images = images.detach().requires_grad_()
        with ExitStack() as stack:
            stack.enter_context(ConstantObserver())
            for number, point in enumerate(self.levels[0].points):
                stack.enter_context(seen_at(point, partial(start_here, number)))
            for level, found in zip(self.levels[1:], seen[1:], strict=True):
                for number, point in enumerate(level.points):
                    stack.enter_context(seen_at(point, partial(found.__setitem__, number)))
            for level, found in zip(self.levels, mid_residuals, strict=True):
                for number, point in enumerate(level.mid_residuals or ()):
                    stack.enter_context(seen_at(point, partial(found.__setitem__, number)))
            for number, point in enumerate(self.ends or (Point(self.blocks[-1], None),)):
                stack.enter_context(seen_at(point, partial(outputs.__setitem__, number)))
            logits = self.logits(images)
        return Recording(
            logits,
            tuple(map(self._all, seen)),
            views,
            tuple(self._all(found) if found else None for found in mid_residuals),
            self._all(outputs),
        )

    def _all(self, parts: Mapping[int, Tensor]) -> Features:
        """Return the features of all passes, after a look whether all were there."""
        passes = len(self.levels[0].points)
        if len(parts) != passes:
            raise UnreadableModelError(
                f"A block ran in {len(parts)} instead of {passes} passes of a forward pass, unlike "
                "when the model was read; pass a `forward` that runs the same modules every time."
            )
        return joined_features([parts[number] for number in range(passes)])

    def can_drop_tokens(self, images: Tensor) -> bool:
        """Return whether patch tokens carry their positions, so that some may be left out.

        That is so if the model accepts fewer tokens, still reads out the same one, and gives the
        same logits for the patch tokens in another order, up to rounding. Tables that the blocks
        receive (rotary ones) are reordered with them. Relative positions, windows, convolutions and
        token mixing forbid it. Looked at once per image size.
        """
        view, first, size = self.views(images)[0], self.levels[0], images.shape[1:]
        if not (isinstance(view, FeatureView) and view.axes.is_sequence and first.is_whole):
            return False
        if size not in self._drops:
            tokens = self.tokens(images[:1])
            go_on = partial(self.logits_from_patches, images[:1])
            with torch.no_grad():
                needed = (accepts_fewer, ignores_order)
                self._drops[size] = all(holds(go_on, tokens, view) for holds in needed)
        return self._drops[size]
