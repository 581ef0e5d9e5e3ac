"""A model as tokens, levels and logits.

The explained tensor is z0, the token sequence after patch embedding, prefix tokens and position
embedding (Mehri et al. 2025, section 4), or the feature map that enters the first block. Forward
hooks stand on the entry and on the blocks only while a forward pass of ours runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from libragrad_lightning.backward import ConstantObserver
from libragrad_lightning.models.calls import Argument
from libragrad_lightning.models.errors import UnreadableModelError
from libragrad_lightning.models.feature_view import Axes, FeatureView, feature_view
from libragrad_lightning.models.hooks import argument_seen, output_seen, tables_read_at
from libragrad_lightning.models.image_axes import ImageAxis, image_axes
from libragrad_lightning.models.logits import logits_of
from libragrad_lightning.models.refusals import unless_refused


@dataclass(frozen=True)
class Level:
    """A place in a model where all features pass: the input of a block.

    Attributes:
        module: The block; for the first level the module where z0 enters.
        argument: Which of its arguments the features are.
        axes: The order of their axes.
        prefix: How many leading tokens are not patches.
        order: Where in the sequence the patches are, row by row, if not in this order.
        middle: A module inside of the block that receives the features after its first residual
            connection, and as which argument; None if there is none.
    """

    module: nn.Module
    argument: Argument
    axes: Axes
    prefix: int
    order: Tensor | None = None
    middle: tuple[nn.Module, Argument] | None = None


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
    """

    logits: Tensor
    features: tuple[Tensor, ...]
    views: tuple[FeatureView, ...]
    middles: tuple[Tensor | None, ...]
    output: Tensor
    image_axes: Mapping[int, ImageAxis] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class TokenModel:
    """A model that maps images to logits, and the levels of its features.

    Attributes:
        forward: Images `[B, C, H, W]` to logits `[B, classes]`, or to anything that holds them.
        levels: Where z0 enters, then the inputs of all blocks but the first.
        blocks: The blocks.
    """

    forward: Callable[[Tensor], Any]
    levels: tuple[Level, ...]
    blocks: tuple[nn.Module, ...]
    _drops: dict[torch.Size, bool] = field(default_factory=dict, repr=False)
    _shared_stem: dict[torch.Size, bool] = field(default_factory=dict, repr=False)
    _image_axes: dict[tuple[int, ...], Mapping[int, ImageAxis]] = field(
        default_factory=dict, repr=False
    )

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits `[B, C]` of images `[B, C, H, W]`."""
        return logits_of(self.forward(images))

    def tokens(self, images: Tensor) -> Tensor:
        """Return z0 `[B, T, D]` without a graph."""
        z0, view = self._z0(images)
        return view.tokens(z0)

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Return the rows and columns of the patches or cells of z0."""
        return self._z0(images)[1].grid

    def view(self, images: Tensor, features: Tensor, level: int = 0) -> FeatureView:
        """Return how to read the features of a level.

        Raises:
            UnreadableModelError: If the patches do not fill a grid of the images' aspect ratio.
        """
        place = self.levels[level]
        size = (images.shape[-2], images.shape[-1])
        view = feature_view(features.shape, size, place.prefix)
        if view is None or view.axes is not place.axes:
            raise UnreadableModelError(
                f"Features of shape {tuple(features.shape)} do not fill a grid for images of "
                f"{size[0]} x {size[1]}; pass images of the aspect ratio that the model was built "
                "for."
            )
        if place.order is None:
            return view
        return replace(view, order=place.order.to(features.device))

    def logits_from_tokens(
        self, images: Tensor, tokens: Tensor, patches: Tensor | None = None
    ) -> Tensor:
        """Return the logits of a forward pass that goes on from other tokens.

        Args:
            images: `[B, C, H, W]`; the forward pass starts with them as usual.
            tokens: `[B, T', D]`, prefix tokens first, in place of z0.
            patches: Which patches the tokens are, `[B, T' - prefix]`, if they are not all of them
                in order: position tables that the blocks receive are read at these places.
        """
        full: list[FeatureView] = []

        def exchange(z0: Tensor) -> Tensor:
            full.append(self.view(images, z0))
            return full[0].features(tokens)

        with ExitStack() as stack:
            stack.enter_context(
                argument_seen(self.levels[0].module, self.levels[0].argument, exchange)
            )
            if patches is not None:
                for module in self.blocks:
                    stack.enter_context(tables_read_at(module, patches, full))
            return self.logits(images)

    def stem_images(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the images with which forward passes from other tokens may start.

        What the layers before z0 make of the images is thrown away there, so that one image is
        enough, unless the model remembers the size of the batch. Looked at once per image size.

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

        Needs gradients enabled. The graph starts at z0, so nothing before it is differentiated.
        Where images are in the operations is looked at once per image size and state of the
        weights, in a forward pass of two.
        """
        recording = self.record_alone(images)
        # Biases of zero tell nothing, and may be something else after a step of training.
        parameters = (p for block in self.blocks for p in block.parameters())
        steps = sum(p._version for p in parameters if not p.is_inference())
        key = (*images.shape[1:], steps, min(len(images), 2))
        if key not in self._image_axes:
            alone = (recording.logits, recording.features[0]) if len(images) == 1 else None
            self._image_axes[key] = image_axes(partial(self._pair, images), alone)
        return replace(recording, image_axes=self._image_axes[key])

    def record_alone(self, images: Tensor) -> Recording:
        """Run and record a forward pass as `record` does, without looking where images are."""
        return self._record(images, lambda z0: z0)

    def _pair(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Record the first image twice; return the logits and z0."""
        twice = self.record_alone(images[:1].expand(2, -1, -1, -1))
        return twice.logits, twice.features[0]

    def record_from_tokens(self, images: Tensor, tokens: Tensor) -> Recording:
        """Record a forward pass that goes on from other tokens `[B, T, D]` in place of z0."""
        return self._record(images, lambda z0: self.view(images, z0).features(tokens))

    def _z0(self, images: Tensor) -> tuple[Tensor, FeatureView]:
        seen: list[Tensor] = []
        first = self.levels[0]
        with torch.no_grad(), argument_seen(first.module, first.argument, seen.append):
            self.logits(images)
        z0 = _only(seen, first.module)
        return z0, self.view(images, z0)

    def _record(self, images: Tensor, start: Callable[[Tensor], Tensor]) -> Recording:
        entries: list[Tensor] = []
        features: list[Tensor] = []
        middles: dict[int, Tensor] = {}
        outputs: list[Tensor] = []

        def start_here(z0: Tensor) -> Tensor:
            entries.append(start(z0).detach().requires_grad_())
            # A leaf could not be overwritten by the module that it enters.
            return entries[-1].clone()

        with ExitStack() as stack:
            stack.enter_context(ConstantObserver())
            first = self.levels[0]
            stack.enter_context(argument_seen(first.module, first.argument, start_here))
            for level in self.levels[1:]:
                stack.enter_context(argument_seen(level.module, level.argument, features.append))
            for i, level in enumerate(self.levels):
                if level.middle is not None:
                    keep = partial(middles.__setitem__, i)
                    stack.enter_context(argument_seen(*level.middle, keep))
            stack.enter_context(output_seen(self.blocks[-1], outputs.append))
            logits = self.logits(images)
        all_features = (_only(entries, first.module), *features)
        views = tuple(self.view(images, f, level) for level, f in enumerate(all_features))
        found = tuple(middles.get(i) for i in range(len(self.levels)))
        return Recording(logits, all_features, views, found, outputs[-1])

    def positions_end_at_tokens(self, images: Tensor) -> bool:
        """Return whether patch tokens carry their positions, so that some may be left out.

        That is so if the model accepts fewer tokens, and gives the same logits for the patch tokens
        in another order, up to rounding. Position tables that the blocks receive (rotary ones) are
        reordered with them. Models with relative positions, windows, convolutions or token mixing
        do not. Looked at once per image size.
        """
        if self.levels[0].axes is not Axes.TOKENS:
            return False
        size = images.shape[1:]
        if size not in self._drops:
            tokens = self.tokens(images[:1])
            with torch.no_grad():
                self._drops[size] = self._accepts_fewer(images[:1], tokens) and (
                    self._ignores_order(images[:1], tokens)
                )
        return self._drops[size]

    def _accepts_fewer(self, images: Tensor, tokens: Tensor) -> bool:
        patches = torch.arange(tokens.shape[1] - self.levels[0].prefix - 1, device=tokens.device)
        fewer = partial(self.logits_from_tokens, images, tokens[:, :-1], patches[None])
        return unless_refused(fewer) is not None

    def _ignores_order(self, images: Tensor, tokens: Tensor) -> bool:
        prefix = self.levels[0].prefix
        patches = torch.arange(tokens.shape[1] - prefix, device=tokens.device).flip(0)
        reordered = torch.cat([tokens[:, :prefix], tokens[:, prefix:][:, patches]], dim=1)
        logits = self.logits_from_tokens(images, tokens)
        change = (self.logits_from_tokens(images, reordered, patches[None]) - logits).abs().max()
        rounding = 100 * torch.finfo(logits.dtype).eps * logits.abs().max()
        return bool(change <= rounding)


def _only(tensors: Sequence[Tensor], module: nn.Module) -> Tensor:
    if len(tensors) != 1:
        raise UnreadableModelError(
            f"{type(module).__name__}, where the tokens enter, ran {len(tensors)} times in one "
            "forward pass instead of once; pass the path of the backbone to explain as `backbone`."
        )
    return tensors[0]
