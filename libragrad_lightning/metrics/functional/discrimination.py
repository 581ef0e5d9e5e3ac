"""Class discrimination: do the maps of two classes in one image tell their objects apart?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from libragrad_lightning.metrics.functional.checks import (
    check_boolean,
    check_floating_point,
    check_layout,
    check_shape,
)
from libragrad_lightning.metrics.functional.maps import (
    check_masked_maps,
    read_masked_maps,
    scaled_down,
)
from libragrad_lightning.metrics.functional.segmentation_ap import segmentation_average_precision

if TYPE_CHECKING:
    from torch import Tensor


def class_discrimination(attribution: Tensor, mask: Tensor, ignore: Tensor | None = None) -> Tensor:
    r"""Return how much better maps find the object of their own class than that of the other.

    With :math:`\text{AP}_{ij}` the average precision of the map of class i on the mask of class j:

    .. math:: \tfrac{1}{2} (\text{AP}_{11} - \text{AP}_{12} + \text{AP}_{22} - \text{AP}_{21})

    Maps that do not depend on the class score exactly 0, whatever they find. Pixels that belong to
    both objects are left out.

    Args:
        attribution: Signed maps of two classes that are both in the image [B, 2, H, W], any
            floating point type.
        mask: Pixels of their objects, in the same order [B, 2, H, W], boolean.
        ignore: Pixels to leave out [B, H, W], boolean. All pixels count by default.

    Returns:
        Values in [-1, 1], [B], float64 (float32 on devices without float64); NaN where an object
        has no pixel that counts or a map is not finite on a pixel that counts.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import class_discrimination
        >>> attribution = torch.tensor([[[[0.9, 0.1, 0.0]], [[0.0, 0.9, 0.1]]]])
        >>> mask = torch.tensor([[[[True, False, False]], [[False, True, False]]]])
        >>> class_discrimination(attribution, mask).float()
        tensor([0.5833])
    """
    left_out = contested(attribution, mask, ignore)
    batch = len(attribution)
    found = segmentation_average_precision(
        attribution.flatten(0, 1),
        mask.repeat_interleave(2, dim=0),
        left_out.repeat_interleave(2, dim=0),
    ).view(batch, 2, 2)
    own = found.diagonal(dim1=1, dim2=2).sum(dim=1)
    return own - found.sum(dim=(1, 2)) / 2


def target_discrimination(
    attribution: Tensor, mask: Tensor, other_mask: Tensor, ignore: Tensor | None = None
) -> Tensor:
    """Return how much better maps of one class find its object than another object in the image.

    The average precision of the map on the object of its class less that on the other object. Over
    the maps of both classes of an image, the mean is `class_discrimination`. Pixels that belong to
    both objects are left out.

    Args:
        attribution: Signed maps [B, H, W], any floating point type.
        mask: Pixels of the object of the map's class [B, H, W], boolean.
        other_mask: Pixels of other objects [B, H, W], boolean.
        ignore: Pixels to leave out [B, H, W], boolean. All pixels count by default.

    Returns:
        Values in [-1, 1], [B], float64 (float32 on devices without float64); NaN where an object
        has no pixel that counts or a map is not finite on a pixel that counts.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import target_discrimination
        >>> attribution = torch.tensor([[[0.9, 0.1, 0.0]]])
        >>> mask, other_mask = torch.eye(3, dtype=torch.bool)[:2, None, None]
        >>> target_discrimination(attribution, mask, other_mask).float()
        tensor([0.5000])
    """
    left_out = shared_pixels(attribution, mask, other_mask, ignore)
    both = torch.stack([mask, other_mask], dim=1)
    found = segmentation_average_precision(attribution, both, left_out)
    return found[:, 0] - found[:, 1]


def target_share(
    attribution: Tensor, mask: Tensor, other_mask: Tensor, ignore: Tensor | None = None
) -> Tensor:
    """Return how much of what maps of one class show on objects lies on the object of the class.

    The sum of the positive attribution on that object, as a share of its sum on that object and on
    others; one half for maps that prefer none of two alike objects. Pixels that belong to both are
    left out.

    Args:
        attribution: Signed maps [B, H, W], any floating point type.
        mask: Pixels of the object of the map's class [B, H, W], boolean.
        other_mask: Pixels of other objects [B, H, W], boolean.
        ignore: Pixels to leave out [B, H, W], boolean. All pixels count by default.

    Returns:
        Values in [0, 1], [B], float64 (float32 on devices without float64); NaN where an object has
        no pixel that counts, or a map is not finite or nowhere positive on them.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import target_share
        >>> attribution = torch.tensor([[[0.9, 0.1, 0.5]]])
        >>> mask, other_mask = torch.eye(3, dtype=torch.bool)[:2, None, None]
        >>> target_share(attribution, mask, other_mask).float()
        tensor([0.9000])
    """
    left_out = shared_pixels(attribution, mask, other_mask, ignore)
    maps = read_masked_maps(attribution, torch.stack([mask, other_mask], dim=1), left_out)
    counted = maps.wide.clamp_min(0).masked_fill(~maps.positive, 0)
    positive = scaled_down(counted, dim=(-2, -1))
    found = maps.valid(positive.sum(dim=-1))
    return found[:, 0] / found.sum(dim=1)


def shared_pixels(
    attribution: Tensor, mask: Tensor, other_mask: Tensor, ignore: Tensor | None
) -> Tensor:
    """Return the pixels that are ignored or belong to both objects [B, H, W].

    Args:
        attribution: Maps [B, H, W].
        mask: Pixels of one object [B, H, W], boolean.
        other_mask: Pixels of the other [B, H, W], boolean.
        ignore: Pixels to leave out [B, H, W], boolean, or None.

    Raises:
        ValueError: If a shape or a type is wrong.
    """
    check_masked_maps(attribution, mask, ignore)
    check_layout("mask", mask, "[B, H, W]")
    check_boolean("other_mask", other_mask)
    check_shape("other_mask", other_mask, tuple(mask.shape), "mask")
    both = mask & other_mask
    return both if ignore is None else both | ignore


def contested(attribution: Tensor, mask: Tensor, ignore: Tensor | None) -> Tensor:
    """Return the pixels that are ignored or belong to both objects [B, H, W].

    Args:
        attribution: Maps of two classes [B, 2, H, W].
        mask: Pixels of their objects [B, 2, H, W], boolean.
        ignore: Pixels to leave out [B, H, W], boolean, or None.

    Raises:
        ValueError: If a shape or a type is wrong.
    """
    check_layout("attribution", attribution, "[B, 2, H, W]")
    check_floating_point("attribution", attribution)
    batch, classes, height, width = attribution.shape
    if classes != 2:
        raise ValueError(
            "Expected argument `attribution` to hold the maps of 2 classes per image"
            f" but got shape {list(attribution.shape)}."
        )
    check_boolean("mask", mask)
    check_shape("mask", mask, tuple(attribution.shape), "attribution")
    if ignore is None:
        return mask.all(dim=1)
    check_boolean("ignore", ignore)
    check_shape("ignore", ignore, (batch, height, width), "attribution")
    return torch.logical_or(mask.all(dim=1), ignore)
