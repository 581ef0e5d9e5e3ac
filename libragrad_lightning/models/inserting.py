"""Forward passes of some images in which single patches have the activations of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from libragrad_lightning.models.feature_view import Features, FeatureView, only, parts_of
from libragrad_lightning.models.levels import features_at, seen_at
from libragrad_lightning.models.token_model import TokenModel


@torch.no_grad()
def inserted_patches(
    model: TokenModel, context: Tensor, sources: Mapping[int, Features]
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function that inserts one patch of each source into a forward pass of its context.

    Args:
        model: The model and its tokens.
        context: The images whose forward passes are changed, `[B, C, H, W]`.
        sources: What is inserted, by the numbers of the levels: the features of B other images
            there. These levels have one grid. Between them, what is inserted goes on as it does
            among the tokens of the context.

    Returns:
        From the numbers of images `[R]` and of the patches that are inserted `[R]` to logits
        `[R, C]`.
    """
    first = min(sources)
    views = model.views(context)
    (entering,) = features_at(model.forward, [model.levels[first]], context)

    def logits(rows: Tensor, patches: Tensor) -> Tensor:
        is_whole = model.levels[first].is_whole
        # All features pass at a level, so that what a pass begins with is forgotten there.
        images = model.placeholder_images(context, rows) if is_whole else context[rows]
        with torch.no_grad(), ExitStack() as stack:
            for number, features in sources.items():
                level = model.levels[number]
                parts = zip(level.points, views[number].passes, parts_of(features), strict=True)
                for i, (point, view, part) in enumerate(parts):
                    source = view.tokens(part.detach())
                    begun = view.tokens(entering[i]) if number == first else None
                    insert = _Insertion(view, source, begun, rows, patches, level.is_whole)
                    stack.enter_context(seen_at(point, insert))
            return model.logits(images)

    return logits


@dataclass(frozen=True)
class _Insertion:
    """Replaces one token of every row.

    Attributes:
        view: Where the tokens are.
        source: The tokens of which one is taken `[B, T, D]`.
        begun: The tokens of the context with which the pass goes on `[B, T, D]`; None for those
            that enter.
        rows: The numbers of the images `[R]`.
        patches: The numbers of the patches `[R]`.
        is_whole: As of `Level`.
    """

    view: FeatureView
    source: Tensor
    begun: Tensor | None
    rows: Tensor
    patches: Tensor
    is_whole: bool

    def __call__(self, entering: Tensor) -> Tensor | None:
        """Return what enters in the place of a tensor, or write it there."""
        tokens = self.view.tokens(entering).clone() if self.begun is None else self.begun[self.rows]
        place = self.view.prefix + self.patches
        tokens[torch.arange(len(place), device=place.device), place] = self.source[self.rows, place]
        found = only(self.view.features(tokens))
        if self.is_whole:
            return found
        entering.copy_(found)
        return None
