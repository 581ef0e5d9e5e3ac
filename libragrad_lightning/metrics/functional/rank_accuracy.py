"""Localization by a ranking cut where the object would end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.functional.maps import read_masked_maps

if TYPE_CHECKING:
    from torch import Tensor


def relevance_rank_accuracy(
    attribution: Tensor, mask: Tensor, ignore: Tensor | None = None
) -> Tensor:
    r"""Return which share of an object's K pixels is among the K most relevant ones.

    .. math:: \frac{|\text{top}_K(a) \cap \text{mask}|}{K}, \quad K = |\text{mask}|

    Of several pixels that share the last relevance among the K, as many as have room count in the
    proportion in which they lie on the object, which is the mean over all orders of them.

    Args:
        attribution: Signed maps [B, H, W], any floating point type; larger means more relevant.
        mask: Pixels of the object [B, H, W], or of M objects per image [B, M, H, W]; boolean.
        ignore: Pixels to leave out: [B, H, W] or shaped like ``mask``, boolean. All pixels count
            by default.

    Returns:
        Values in [0, 1], [B] or [B, M], float64 (float32 on devices without float64); NaN for a
        mask without a pixel that counts and for a map with a non-finite value on a pixel that
        counts.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import relevance_rank_accuracy
        >>> attribution = torch.tensor([[[0.9, 0.1], [0.8, -0.3]]])
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> relevance_rank_accuracy(attribution, mask).tolist()
        [0.5]

    Source:
        Arras et al., CLEVR-XAI: A Benchmark Dataset for the Ground Truth Evaluation of Neural
        Network Explanations (Information Fusion 2022).
    """
    maps = read_masked_maps(attribution, mask, ignore)
    values = maps.wide.masked_fill(~maps.counted, -float("inf"))
    size = maps.positive.sum(dim=-1, keepdim=True)
    ranked = values.sort(dim=-1, descending=True).values.expand(*size.shape[:2], -1)
    last = ranked.gather(-1, (size - 1).clamp_min(0))
    above, at = values > last, values == last
    inside = (above & maps.positive).sum(dim=-1)
    room = size[..., 0] - above.sum(dim=-1)
    share = (at & maps.positive).sum(dim=-1).to(maps.wide) / at.sum(dim=-1)
    return maps.valid((inside + room * share) / size[..., 0])
