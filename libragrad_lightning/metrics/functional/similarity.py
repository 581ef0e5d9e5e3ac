"""Similarity of two sets of maps of the same images, such as those of two audits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from libragrad_lightning.metrics.functional.checks import check_floating_point, check_shape
from libragrad_lightning.metrics.functional.correlation import row_correlation, row_cosine
from libragrad_lightning.metrics.functional.maps import check_maps
from libragrad_lightning.metrics.functional.precision import accumulation_dtype
from libragrad_lightning.metrics.functional.sorting import average_ranks

if TYPE_CHECKING:
    from torch import Tensor


def map_cosine_similarity(attribution: Tensor, reference: Tensor) -> Tensor:
    """Return the cosine of the angle between the pixels of two maps.

    Args:
        attribution: Signed maps [B, H, W], any floating point type.
        reference: Signed maps of the same images [B, H, W], any floating point type.

    Returns:
        Values in [-1, 1], [B], float64 (float32 on devices without float64); NaN where a map is
        zero or not finite.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import map_cosine_similarity
        >>> attribution = torch.tensor([[[3.0, 4.0]]])
        >>> map_cosine_similarity(attribution, torch.tensor([[[4.0, -3.0]]])).item()
        0.0
    """
    return row_cosine(*(pixels / _largest(pixels) for pixels in _pixels(attribution, reference)))


def map_rank_correlation(attribution: Tensor, reference: Tensor) -> Tensor:
    """Return Spearman's correlation between the pixels of two maps, ties at their mean rank.

    Args:
        attribution: Signed maps [B, H, W], any floating point type.
        reference: Signed maps of the same images [B, H, W], any floating point type.

    Returns:
        Values in [-1, 1], [B], float64 (float32 on devices without float64); NaN where a map is
        constant or not finite.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import map_rank_correlation
        >>> attribution = torch.tensor([[[1.0, 2.0, 9.0]]])
        >>> map_rank_correlation(attribution, torch.tensor([[[0.0, 4.0, 3.0]]])).item()
        0.5

    Source:
        Adebayo et al., Sanity Checks for Saliency Maps (NeurIPS 2018), section 3.
    """
    ranks = []
    finite = attribution.new_ones(len(attribution), dtype=torch.bool)
    for pixels in _pixels(attribution, reference):
        finite = finite & pixels.isfinite().all(dim=1)
        ranks.append(average_ranks(pixels.nan_to_num()))
    return row_correlation(*ranks).masked_fill(~finite, float("nan"))


def map_structural_similarity(attribution: Tensor, reference: Tensor, sigma: float = 1.5) -> Tensor:
    """Return the structural similarity (SSIM) of two maps, each divided by its largest size.

    Args:
        attribution: Signed maps [B, H, W], any floating point type.
        reference: Signed maps of the same images [B, H, W], any floating point type.
        sigma: Standard deviation of the Gaussian window in pixels. The window reaches
            ``int(3.5 * sigma + 0.5)`` pixels to each side, and maps have to be larger than that.

    Returns:
        Values in [-1, 1], [B], float64 (float32 on devices without float64); NaN where a map is
        zero or not finite.

    Raises:
        ValueError: If a shape or a type is wrong, or the maps are too small for the window.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics.functional import map_structural_similarity
        >>> attribution = torch.arange(64.0).view(1, 8, 8)
        >>> map_structural_similarity(attribution, 2 * attribution).float()
        tensor([1.])

    Source:
        Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity (IEEE
        TIP 2004); for maps: Adebayo et al., Sanity Checks for Saliency Maps (NeurIPS 2018).
    """
    pairs = _pixels(attribution, reference)
    _check_window(attribution, sigma)
    first, second = (
        (pixels / _largest(pixels)).view(len(pixels), 1, *attribution.shape[1:]) for pixels in pairs
    )
    similarity = structural_similarity_index_measure(
        first, second, sigma=sigma, data_range=2.0, reduction="none"
    )
    assert isinstance(similarity, torch.Tensor)
    return similarity


def check_sigma(sigma: float) -> None:
    """Check the width of a Gaussian window.

    Args:
        sigma: Its standard deviation in pixels, expected above 0.

    Raises:
        ValueError: If it is not.
    """
    if not sigma > 0:
        raise ValueError(f"Expected argument `sigma` to be positive but got {sigma!r}.")


def _check_window(attribution: Tensor, sigma: float) -> None:
    check_sigma(sigma)
    reach = int(3.5 * sigma + 0.5)
    if min(attribution.shape[1:]) <= reach:
        raise ValueError(
            f"Expected argument `attribution` to be larger than the {reach} pixels that the window"
            f" of `sigma={sigma}` reaches to each side but got maps of"
            f" {list(attribution.shape[1:])} pixels."
        )


def _pixels(attribution: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Check two sets of maps [B, H, W] and flatten them to [B, P]."""
    check_maps("attribution", attribution)
    check_floating_point("reference", reference)
    check_shape("reference", reference, tuple(attribution.shape), "attribution")
    dtype = accumulation_dtype(attribution.device)
    return attribution.to(dtype).flatten(1), reference.to(dtype).flatten(1)


def _largest(pixels: Tensor) -> Tensor:
    return pixels.abs().amax(dim=1, keepdim=True)
