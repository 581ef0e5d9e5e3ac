"""Whether some tokens may be left out of a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from libragrad_lightning.models.feature_view import FeatureView
from libragrad_lightning.models.refusals import unless_refused


def accepts_fewer(go_on: Callable[..., Tensor], tokens: Tensor, view: FeatureView) -> bool:
    """Return whether leaving out the first patch is to put the last one in its place.

    It is not if a token is read out by a number that is another one's then.

    Args:
        go_on: `TokenModel.logits_from_patches` of one image.
        tokens: All of its tokens `[1, T, D]`.
        view: How to read them.
    """
    patches = torch.arange(view.length - view.prefix, device=tokens.device)[None]
    left = unless_refused(partial(go_on, tokens, patches[:, 1:]))
    if left is None:
        return False
    rolled = tokens.clone()
    rolled[:, view.prefix] = tokens[:, -1]
    read_at = torch.cat([patches[:, -1:], patches[:, 1:-1]], dim=1)
    return _equal_up_to_rounding(left, go_on(rolled, patches[:, :-1], read_at=read_at))


def ignores_order(go_on: Callable[..., Tensor], tokens: Tensor, view: FeatureView) -> bool:
    """Return whether patches in another order, each with its position, have the same logits.

    Arguments as those of `accepts_fewer`.
    """
    patches = torch.arange(view.length - view.prefix, device=tokens.device)[None]
    turned = torch.cat([tokens[:, : view.prefix], tokens[:, view.prefix :].flip(1)], dim=1)
    found = go_on(turned, patches, read_at=patches.flip(1))
    return _equal_up_to_rounding(go_on(tokens, patches), found)


def _equal_up_to_rounding(logits: Tensor, others: Tensor) -> bool:
    rounding = 100 * torch.finfo(logits.dtype).eps * logits.abs().max()
    return bool((others - logits).abs().max() <= rounding)
