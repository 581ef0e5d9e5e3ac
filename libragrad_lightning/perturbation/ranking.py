"""The order in which patches are deleted, with ties broken at random.

Ties are the rule and not the exception: a ReLU network leaves most cells of its maps at exactly
zero, and a map without information is one single tie. Broken by position, they would be deleted
from the top of the image down, and a model that looks at the top would seem well explained. Broken
by a permutation that all images share, or that their equal scores lead to, they would still measure
where the model likes to look. So every image has its own permutation, drawn from its pixels: a map
without information then has a symmetric relevance gain of zero in expectation over images, and the
result of an image depends neither on the other images of its batch nor on the device. All maps of
an image share the permutation, so that differences between them are not made of luck.
"""

from __future__ import annotations

import torch
from torch import Tensor

from libragrad_lightning.models import image_generators


def tie_breakers(images: Tensor, patches: int) -> Tensor:
    """Return for every image a random order of its patches, which its pixels determine.

    Costs one wait for the device per batch.

    Args:
        images: `[B, C, H, W]`; read in float32, so that equal images in another precision have
            equal orders.
        patches: Number of patches N.

    Returns:
        Permutations `[B, N]`, int64, on the device of the images.
    """
    orders = [torch.randperm(patches, generator=g) for g in image_generators(images)]
    return torch.stack(orders).to(images.device)


def deletion_ranks(scores: Tensor, ties: Tensor) -> tuple[Tensor, Tensor]:
    """Return the place of every patch if the most, and if the least influential go first.

    Args:
        scores: Signed attributions `[B, N]`, of any real type and without NaN.
        ties: In which order equal ones count as influential, permutations `[B, N]`.

    Returns:
        Places from 0 to N - 1, `[B, N]`, int64; each order is the exact reverse of the other.
    """
    order = scores.gather(1, ties).argsort(dim=1, descending=True, stable=True)
    order = ties.gather(1, order)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(1, order, places)
    return ranks, order.shape[1] - 1 - ranks
