"""Forward passes that go on from other features than those of the images."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor

from libragrad_lightning.models.errors import UnreadableModelError
from libragrad_lightning.models.feature_view import Features, FeatureView, parts_of
from libragrad_lightning.models.hooks import tables_read_at
from libragrad_lightning.models.levels import Point, seen_at
from libragrad_lightning.models.refusals import unless_refused
from libragrad_lightning.models.token_model import TokenModel


def logits_behind(model: TokenModel, images: Tensor, output: Features) -> Tensor:
    """Return the logits of a forward pass that goes on from other features behind the last block.

    Args:
        model: The model.
        images: `[B, C, H, W]`; the forward pass starts with them as usual.
        output: In place of what the last block returns.
    """
    points = model.ends or (Point(model.blocks[-1], None),)
    # What a module returns is seen if it is differentiable, which frozen weights alone are not.
    return _logits_from(model, images.detach().requires_grad_(), points, output)


def logits_of_tokens_alone(model: TokenModel, images: Tensor, tokens: Tensor) -> Tensor:
    """Return the logits of every token as if there were no other in the last block.

    It stands there as a patch, and in the places of those that lie nowhere. So attention is to
    itself, and whatever reads tokens out reads it.

    Args:
        model: The model.
        images: `[1, C, H, W]` or `[B * T, C, H, W]`; the forward pass starts with them as usual.
        tokens: What enters the last block, `[B, T, D]`.

    Returns:
        `[B, T, C]`.

    Raises:
        UnreadableModelError: If the last block does not take tokens one by one.
    """
    level, view = model.levels[-1], model.views(images)[-1]
    alone = None
    if isinstance(view, FeatureView) and view.axes.is_sequence and level.is_whole:
        count = view.grid[0] * view.grid[1]
        own = torch.arange(count, device=tokens.device).expand(len(tokens), -1)
        own = torch.cat([own.new_zeros(len(tokens), view.prefix), own], dim=1).view(-1, 1)
        own = view.patches_in_model(own, own)
        copies = tokens.flatten(0, 1)[:, None].expand(-1, view.prefix + 1, -1)
        features = view.axes.features(copies, (1, view.prefix + 1))
        with tables_read_at(model.blocks[-1], count, own):
            alone = unless_refused(partial(_logits_from, model, images, level.points, features))
    if alone is None:
        raise UnreadableModelError(
            "The last block of this model does not take its tokens one by one, as those with "
            "feature maps, token mixing or tables of relative positions do not; choose another "
            "`method`, such as 'fullgrad_plus'."
        )
    return alone.unflatten(0, tokens.shape[:2])


def _logits_from(
    model: TokenModel, images: Tensor, points: tuple[Point, ...], features: Features
) -> Tensor:
    with ExitStack() as stack:
        for point, part in zip(points, parts_of(features), strict=True):
            stack.enter_context(seen_at(point, partial(_instead, part)))
        return model.logits(images)


def _instead(features: Tensor, _: Tensor) -> Tensor:
    return features
