"""Similarity of two sets of maps: how far explanations have drifted between two audits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libragrad_lightning.metrics.functional.maps import is_constant
from libragrad_lightning.metrics.functional.similarity import (
    check_sigma,
    map_cosine_similarity,
    map_rank_correlation,
    map_structural_similarity,
)
from libragrad_lightning.metrics.sample_mean import SampleMean

if TYPE_CHECKING:
    from torch import Tensor


class MapSimilarity(SampleMean):
    """Mean over images of the similarity of two maps; the base of the metrics below.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Attributes:
        num_constant: State: number of images left out because one of the maps has the same value
            everywhere.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0

    num_constant: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_count("num_constant")

    def update(self, attribution: Tensor, reference: Tensor) -> None:
        """Add the images of one batch.

        Args:
            attribution: Signed maps [B, H, W], any floating point type.
            reference: Signed maps of the same images [B, H, W], any floating point type.
        """
        values = self._similarity(attribution, reference)
        self._add(values, num_constant=is_constant(attribution) | is_constant(reference))

    def _similarity(self, attribution: Tensor, reference: Tensor) -> Tensor:
        raise NotImplementedError


class MapCosineSimilarity(MapSimilarity):
    """Cosine of the angle between the pixels of two maps, averaged over images.

    Left out and counted are images of which a map is constant (state ``num_constant``) or not
    finite (``num_invalid``).

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: signed maps [B, H, W], any floating point type.
    - ``reference``: signed maps of the same images [B, H, W], such as those of an earlier audit.

    As output of ``forward`` and ``compute`` it returns a scalar in [-1, 1], NaN without a valid
    image; the drift is its distance from 1.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import MapCosineSimilarity
        >>> metric = MapCosineSimilarity()
        >>> metric(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[4.0, 3.0]]])).float()
        tensor(0.9600)
    """

    total_name = "cosine"

    def _similarity(self, attribution: Tensor, reference: Tensor) -> Tensor:
        return map_cosine_similarity(attribution, reference)


class MapRankCorrelation(MapSimilarity):
    """Spearman's rank correlation between the pixels of two maps, averaged over images.

    Left out and counted are images of which a map is constant (state ``num_constant``) or not
    finite (``num_invalid``).

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: signed maps [B, H, W], any floating point type.
    - ``reference``: signed maps of the same images [B, H, W], such as those of an earlier audit.

    As output of ``forward`` and ``compute`` it returns a scalar in [-1, 1], NaN without a valid
    image; the drift is its distance from 1.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import MapRankCorrelation
        >>> metric = MapRankCorrelation()
        >>> metric(torch.tensor([[[1.0, 2.0, 9.0]]]), torch.tensor([[[0.0, 4.0, 3.0]]])).item()
        0.5

    Source:
        Adebayo et al., Sanity Checks for Saliency Maps (NeurIPS 2018), section 3.
    """

    total_name = "rank_correlation"

    def _similarity(self, attribution: Tensor, reference: Tensor) -> Tensor:
        return map_rank_correlation(attribution, reference)


class MapStructuralSimilarity(MapSimilarity):
    """Structural similarity (SSIM) of two maps, each divided by its largest size.

    Left out and counted are images of which a map is constant (state ``num_constant``) or not
    finite (``num_invalid``).

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: signed maps [B, H, W], any floating point type.
    - ``reference``: signed maps of the same images [B, H, W], such as those of an earlier audit.

    As output of ``forward`` and ``compute`` it returns a scalar in [-1, 1], NaN without a valid
    image; the drift is its distance from 1.

    Args:
        sigma: Standard deviation of the Gaussian window in pixels. The window reaches
            ``int(3.5 * sigma + 0.5)`` pixels to each side, and maps have to be larger than that.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument, a shape or a type is wrong, or maps are too small.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import MapStructuralSimilarity
        >>> attribution = torch.arange(64.0).view(1, 8, 8)
        >>> MapStructuralSimilarity()(attribution, 2 * attribution).float()
        tensor(1.)

    Source:
        Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity (IEEE
        TIP 2004); for maps: Adebayo et al., Sanity Checks for Saliency Maps (NeurIPS 2018).
    """

    total_name = "structural_similarity"

    def __init__(self, sigma: float = 1.5, **kwargs: Any) -> None:
        check_sigma(sigma)
        super().__init__(**kwargs)
        self.sigma = sigma

    def _similarity(self, attribution: Tensor, reference: Tensor) -> Tensor:
        return map_structural_similarity(attribution, reference, self.sigma)
